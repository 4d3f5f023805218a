"""`formwright keep`, as a user calls it."""

import json
import shlex

import pytest
import torch

from formwright.__main__ import main
from formwright.search import Measurement, Result, SearchSpec, Trial, load, run_search

from .artefacts import BARE, FILES, TINY, kept, metrics_of, names, quick, quickly

__all__ = ["quick"]
SMALL = {"knobs": ("depth=1", "mixer0=pool", "width=16"), "objectives": ("quality", "params")}


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Where a real search of two trials was saved."""
    folder = tmp_path_factory.mktemp("result")
    spec = SearchSpec.from_dict({**TINY.to_dict(), "trials": 2, "sampler": "random", **SMALL})
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch, folder)
        return run_search(spec, progress=False).save(folder / "result.json")


def test_the_best_of_a_search(result, tmp_path, capsys, quick):
    assert main(["keep", str(result), "--to", str(tmp_path / "one"), "--seeds", "1"]) == 0

    out, err = capsys.readouterr()
    best = Result.load(result).front()[0]
    metrics = metrics_of(tmp_path / "one")
    assert out.splitlines()[-1] == str(tmp_path / "one")
    assert [line.split()[0] for line in err.splitlines()][-1] == "4/4"
    assert names(tmp_path / "one") == FILES
    assert metrics["search"]["trial"] == best.number
    assert metrics["search"]["values"] == dict(best.values)
    assert metrics["search"]["equal"] is True
    assert load(tmp_path / "one")[0] == best.architecture


def fake(quality, params, number, width):
    architecture = type(BARE).of_images((1, 8, 8), 10, 2, width, ())
    trial = Trial(number, {}, architecture).started()
    return trial.succeeded(Measurement({"quality": quality, "params": params}))


def spread_out(folder):
    """A result whose front has two members: the second trial and the third."""
    trials = (fake(0.5, 9, 0, 12), fake(0.9, 8, 1, 8), fake(0.6, 3, 2, 4))
    spec = SearchSpec.from_dict({**TINY.to_dict(), "objectives": ["quality", "params"]})
    return Result(spec, trials).save(folder / "made.json")


@pytest.mark.parametrize(
    ("which", "number"),
    [([], 1), (["--best", "params"], 2), (["--best", "quality"], 1), (["--number", "0"], 0)],
)
def test_which_one(which, number, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        "formwright.search.artefact.make.keep",
        lambda architecture, spec, folder, **more: asked.append(more["trial"]) or 1 / 0,
    )
    with pytest.raises(ZeroDivisionError):
        main(["keep", str(spread_out(tmp_path)), *which, "--to", str(tmp_path / "one")])

    assert asked[0].number == number


def test_the_command_in_the_folder_makes_it_again(tmp_path, monkeypatch, quick):
    found = kept(tmp_path / "one", BARE, seeds=2)
    program, *command = shlex.split(found.metrics["command"])
    monkeypatch.chdir(tmp_path / "one")

    assert program == "formwright"
    assert main(command) == 0

    inputs = torch.ones(2, 1, 8, 8)
    outputs = [load(tmp_path / name)[1](inputs) for name in ("one", "again")]
    assert torch.equal(*outputs)
    again = metrics_of(tmp_path / "again")
    assert again["files"]["model.safetensors"] == found.metrics["files"]["model.safetensors"]
    assert again["command"] == found.metrics["command"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.json"], "No such file"),
        ([], "wanted the result of a search, or --spec and --architecture"),
        (["{result}", "--spec", "{{}}"], "wanted the result of a search, or"),
        (["--spec", "{{}}"], "wanted the result of a search, or"),
        (
            ["--spec", "{{}}", "--architecture", "{bare}", "--best", "params"],
            "are about the result",
        ),
        (["--spec", '{{"task":"digist"}}', "--architecture", "{bare}"], "Did you mean 'digits'"),
        (["--spec", "{{}}", "--architecture", "{{}}"], "schema"),
        (["{result}", "--number", "3"], "there is no trial 3; there are 3, from 0"),
        (["{result}", "--best", "parms"], "Did you mean 'params'"),
        (["{result}", "--best", "latency_ms"], "the search did not measure latency_ms"),
        (["{result}", "--seeds", "0"], "seeds: wanted a whole number"),
        (["{empty}"], "no trial of this search succeeded"),
    ],
)
def test_what_cannot_be_asked_is_said_in_a_line(arguments, said, tmp_path, capsys, quick):
    empty = Result(TINY, ()).save(tmp_path / "empty.json")
    texts = {"result": spread_out(tmp_path), "empty": empty, "bare": "@"}
    given = [text.format(**texts).replace("@", BARE.to_json()) for text in arguments]

    assert main(["keep", *given, "--to", str(tmp_path / "one")]) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("formwright keep: ")
    assert said in err
    assert "one" not in names(tmp_path)


def test_what_cannot_be_made_is_another_exit_code(tmp_path, capsys, quick):
    spec = json.dumps({**TINY.to_dict(), "task": "recall_small"})

    code = main(
        ["keep", "--spec", spec, "--architecture", BARE.to_json(), "--to", f"{tmp_path}/one"]
    )

    assert code == 1
    assert "the architecture is made for" in capsys.readouterr().err
    assert "one" not in names(tmp_path)
