"""Characters of Python's own sources: what is read is what files say, each file in one split."""

import pytest
import torch

from formwright.search.errors import EvaluationError
from formwright.search.tasks import python_chars
from formwright.search.tasks.python_chars import FILES, KNOWN, RARE, WINDOW, WINDOWS, coded

TASK = python_chars.TASK


def text(tokens):
    """The characters of tokens; what is rare is not known any more."""
    return bytes((*KNOWN, 0)[token] for token in tokens.flatten().tolist())


@pytest.mark.parametrize("name", FILES)
def test_windows_are_the_files_one_after_the_other(name):
    split = TASK.load()[name]
    files = b"".join((python_chars.library() / file).read_bytes() for file in FILES[name])
    plain = bytes(byte if byte in KNOWN else 0 for byte in files.replace(b"\r\n", b"\n"))

    assert split.inputs.shape == split.targets.shape == (WINDOWS[name], WINDOW)
    assert text(split.inputs) == plain[: split.inputs.numel()]
    assert text(split.targets) == plain[1 : 1 + split.targets.numel()]


def test_no_file_is_in_two_splits():
    names = [file for files in FILES.values() for file in files]

    assert len(names) == len(set(names))


def test_it_is_judged_in_bits_of_its_vocabulary():
    assert TASK.score == "bits"
    assert TASK.signature.classes == RARE + 1 == 97
    assert str(TASK.signature) == "128 causal tokens of 97 kinds, the next one of each"


def test_every_byte_has_a_token():
    tokens = coded(bytes(range(256)))

    assert set(tokens.tolist()) == set(range(RARE + 1))
    assert (tokens == RARE).sum() == 256 - len(KNOWN)


def test_a_python_without_sources_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(python_chars, "library", lambda: tmp_path)
    with pytest.raises(EvaluationError, match="wants Python's own sources"):
        python_chars.load.__wrapped__()
    for file in FILES["train"]:
        (tmp_path / file).write_text("pass\n")
    with pytest.raises(EvaluationError, match="the sources for train have 95 characters"):
        python_chars.load.__wrapped__()


def test_other_sources_are_other_data(monkeypatch, tmp_path):
    for file in (file for files in FILES.values() for file in files):
        there = (python_chars.library() / file).read_bytes()
        (tmp_path / file).write_bytes(b"# patched\n" + there)
    here = TASK.load()
    monkeypatch.setattr(python_chars, "library", lambda: tmp_path)
    other = python_chars.load.__wrapped__()

    assert text(other["train"].inputs[0])[:10] == b"# patched\n"
    assert not torch.equal(other["train"].inputs, here["train"].inputs)
