"""An artefact is there as a whole or not at all, and what is not what was kept is not loaded."""

import fcntl
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from formwright.search import EvaluationError, SpecError, load
from formwright.search.artefact.folder import making

from .artefacts import BARE, FILES, TINY, kept, names, quick, quickly
from .evaluations import tokens_arch

__all__ = ["quick"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch, folder)
        return kept(folder / "one", BARE).folder


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


@pytest.mark.parametrize("at", [0.001, 0.5, 0.999])
def test_weights_that_were_changed_are_refused(at, copy):
    path = copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)

    with pytest.raises(SpecError, match="not what was kept: its digest differs") as caught:
        load(copy)
    assert caught.value.field == str(path)


def test_an_architecture_that_was_changed_is_refused(copy):
    path = copy / "spec.json"
    path.write_text(path.read_text() + " ")

    with pytest.raises(SpecError, match="digest differs") as caught:
        load(copy)
    assert caught.value.field == str(path)


@pytest.mark.parametrize("name", ["spec.json", "model.safetensors", "metrics.json"])
def test_what_is_missing_is_named(name, copy):
    (copy / name).unlink()

    with pytest.raises(SpecError, match="No such file") as caught:
        load(copy)
    assert caught.value.field == str(copy / name)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"files": 3}', b'{"files": {}}'])
def test_metrics_that_are_none_are_refused(content, copy):
    (copy / "metrics.json").write_bytes(content)

    with pytest.raises(SpecError, match=str(copy)):
        load(copy)


def test_notes_may_be_written_on_the_card(copy):
    (copy / "README.md").write_text("mine")

    assert load(copy)[0] == BARE


def test_only_numbers_and_text_are_kept(whole):
    assert names(whole) == FILES
    assert len({path.stat().st_mode for path in whole.iterdir()}) == 1  # who may read one, may all
    header = (whole / "model.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    assert "__metadata__" in json.loads(header[8 : 8 + length])


@pytest.mark.parametrize("there", ["file", "folder"])
def test_what_is_there_is_left_alone(there, tmp_path, quick):
    folder, told = tmp_path / "one", []
    if there == "file":
        folder.write_text("mine")
    else:
        folder.mkdir()
        (folder / "notes").write_text("mine")

    with pytest.raises(SpecError, match="name a folder that is new or empty") as caught:
        kept(folder, BARE, progress=lambda *step: told.append(step))
    assert caught.value.field == str(folder)
    assert not told
    assert (folder if there == "file" else folder / "notes").read_text() == "mine"


def test_an_empty_folder_is_taken_and_parents_are_made(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "deep" / "er"):
        with making(folder) as half:
            (half / "a").write_text("b")
        assert names(folder) == {"a"}
        assert names(folder.parent) - {"empty", "deep"} <= {"er"}


def test_where_something_is_mounted_is_refused_at_once():
    with pytest.raises(SpecError, match="name a folder inside it"), making("/"):
        pass


def test_whoever_was_faster_wins(tmp_path):
    folder = tmp_path / "one"

    def second():
        with making(folder) as half:
            (half / "a").write_text("second")
            folder.mkdir()
            (folder / "a").write_text("first")

    with pytest.raises(SpecError, match="there is something"):
        second()

    assert (folder / "a").read_text() == "first"
    assert names(tmp_path) == {"one"}


def test_only_what_nobody_makes_any_more_is_cleared(tmp_path):
    for name in (".one.dead.half", ".one.busy.half", ".other.dead.half", "one.half"):
        (tmp_path / name).mkdir()
    busy = os.open(tmp_path / ".one.busy.half", os.O_RDONLY)
    fcntl.flock(busy, fcntl.LOCK_EX)
    with making(tmp_path / "one"):
        pass
    os.close(busy)

    assert names(tmp_path) == {"one", ".one.busy.half", ".other.dead.half", "one.half"}


@pytest.mark.parametrize(
    ("architecture", "seeds", "error", "said"),
    [
        (BARE, 0, SpecError, "seeds: wanted a whole number from 1 to 100, got 0"),
        (BARE, True, SpecError, "seeds: wanted"),
        (tokens_arch(), 1, EvaluationError, "the architecture is made for"),
    ],
    ids=["none", "bool", "task"],
)
def test_what_cannot_be_made(architecture, seeds, error, said, tmp_path, quick):
    with pytest.raises(error, match=said):
        kept(tmp_path / "one", architecture, seeds=seeds)
    assert names(tmp_path) <= {"quiet", "cache"}


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from formwright.search import ArchSpec, SearchSpec, keep
from formwright.search.artefact import folder, make
from formwright.search.evaluate import latency

latency.AIM_S = 0.01
torch.set_num_threads(1)
where, architecture, spec = Path(sys.argv[1]), ArchSpec.from_json(sys.argv[2]), sys.argv[3]


def die(*given):
    os.kill(os.getpid(), signal.SIGKILL)


def run(at):
    told = iter(range(100))
    if at == "last":
        folder.os.rename = die
    keep(architecture, SearchSpec.from_json(spec), where, seeds=1,
         progress=lambda *_: die() if next(told) == at else None)


for at in (0, 2, "last"):  # before the training, once weights are written, before the name
    child = os.fork()
    if not child:
        run(at)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.WTERMSIG(status), where.exists(), len(list(where.parent.glob(".one.*"))), flush=True)
"""


def test_a_kill_leaves_no_folder_that_looks_whole(whole, tmp_path, quick):
    """Whenever it comes; and the next one clears up and makes what it would have been."""
    given = [str(tmp_path / "one"), BARE.to_json(), TINY.to_json()]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *given], capture_output=True, text=True, timeout=600
    )

    assert done.stdout.splitlines() == ["9 False 1"] * 3, done.stderr
    (left,) = tmp_path.glob(".one.*")
    assert list((tmp_path / "cache" / "trainings").glob("*.training"))

    kept(tmp_path / "one", BARE)
    assert not left.exists()
    assert names(tmp_path / "one") == FILES
    outputs = [load(folder)[1](torch.ones(1, 1, 8, 8)) for folder in (tmp_path / "one", whole)]
    assert torch.equal(*outputs)
