"""The page at the end of a search, and its picture."""

import json
import subprocess
import sys
import warnings
from dataclasses import replace

import pytest

from formwright.search import (
    Board,
    Measurement,
    Result,
    SpecError,
    TrialState,
    as_text,
    picture,
)
from formwright.search.front import machine_of
from formwright.search.run.log import answered
from formwright.search.told import is_audited

from .recorded import SPEC, evaluate, searched, values_of, with_block


@pytest.fixture(scope="module")
def plain():
    return searched()


@pytest.fixture(scope="module")
def laddered():
    return searched(replace(SPEC, rungs=3, keep=4, audit=0.6, trials=50))


def line_of(text, start):
    (found,) = [line for line in text.splitlines() if line.startswith(start)]
    return " ".join(found.split())


def test_the_summary_of_a_search(plain):
    text = as_text(plain)
    succeeded, failed = len(plain.succeeded), plain.states[TrialState.FAILED]

    assert text.startswith(f"front: {len(plain.front())} of {succeeded} that succeeded\n")
    said = f"trials 24: {succeeded} succeeded, {failed} failed"
    assert line_of(text, "trials") == said
    assert line_of(text, "  failed") == f"failed {failed} x RuntimeError: diverged in step …"
    assert line_of(text, "hypervolume").split()[1] == f"{plain.hypervolume():.3f}"
    assert f"train {2 * succeeded} s" in line_of(text, "evaluation")
    assert "ladder" not in text
    assert "stored results" not in text
    for trial in plain.front():
        assert trial.architecture.short().split(" | ")[0] in text
    assert all(len(line) <= 100 and line == line.rstrip() for line in text.splitlines())
    assert "\x1b" not in text


def test_the_summary_says_what_the_ladder_has_lost(laddered):
    text = as_text(laddered)
    stopped = [[t for t in laddered.trials if f"stopped on rung {r}," in t.error] for r in (0, 1)]
    audited = [t for t in laddered.succeeded if is_audited(t)]
    lost = [t for t in audited if t in laddered.front()]

    assert all(stopped)
    assert 0 < len(lost) < len(audited)  # a rung orders otherwise, so there is something to tell
    first, second = map(len, stopped)
    assert line_of(text, "ladder") == f"ladder stopped {first} on rung 0, {second} on rung 1"
    said = f"lost by the ladder {len(lost)} of {len(audited)} audited"
    assert line_of(text, "lost by the ladder") == said


def test_a_ladder_without_an_audit_admits_it():
    text = as_text(searched(replace(SPEC, rungs=2)))
    assert "not known: nobody was audited" in line_of(text, "lost by the ladder")


def test_the_summary_shows_the_error_of_the_latency_model():
    """The first rung predicts latencies, the last one measures them: 10 % and 30 % more."""

    def predicts(evaluation):
        measured = evaluate(evaluation)
        values = dict(measured.values)
        if evaluation.latency == "whole":
            odd = int(values_of(evaluation.architecture)["latency_ms"]) % 2
            values = {"latency_ms": values["latency_ms"] * (1.3 if odd else 1.1)}
        return replace(measured, values=values)

    result = searched(replace(SPEC, latency="layers"), predicts)
    line = line_of(as_text(result), "latency model")

    assert f"of {len(result.succeeded)} predictions" in line
    assert f"{1 - 1 / 1.3:.1%} at most" in line


def test_the_error_is_of_what_was_predicted_only():
    """Steps of decoding are measured on both rungs, and what nobody wants is not judged."""

    def predicts(evaluation):
        measured = evaluate(evaluation)
        whole = evaluation.latency == "whole"
        times = {"latency_ms": 10.0, "latency_ratio": 2.0, "throughput": 100.0, "decode_ms": 5.0}
        if whole:
            times = {"latency_ms": 8.0, "latency_ratio": 1.0, "throughput": 125.0, "decode_ms": 1.0}
        return replace(measured, values={**measured.values, **times})

    def error(*objectives):
        spec = replace(SPEC, latency="layers", trials=6, objectives=objectives)
        result = searched(spec, predicts)
        said = line_of(as_text(result), "latency model")
        return said.removesuffix(" predictions"), len(result.succeeded)

    said, count = error("quality", "latency_ms", "decode_ms")
    assert said == f"latency model error 25.0% in the median, 25.0% at most, of {count}"
    said, count = error("quality", "latency_ms", "throughput")
    assert said == f"latency model error 22.5% in the median, 25.0% at most, of {2 * count}"


def test_the_box_is_that_of_one_machine():
    """The board and the summary say the same of a search that ran on two."""

    def on_two(evaluation):
        measured = evaluate(evaluation)
        slow = measured.values["params"] > 60
        values = {**measured.values, "latency_ms": measured.values["latency_ms"] * (90**slow)}
        machine = {"machine": {"fingerprint": "b" if slow else "a"}}
        return Measurement(values, {**measured.details, **machine})

    events = []
    result = searched(SPEC, on_two, events.append)
    board = Board(SPEC)
    for event in events:
        board.add(event)
    said = line_of(as_text(result), "hypervolume").split()[1]
    assert said == f"{board.curve()[-1]:.3f}"
    alone = Result(SPEC, tuple(t for t in result.succeeded if machine_of(t) == "a"))
    assert said == f"{alone.hypervolume():.3f}"


def test_names_are_shown_as_they_are(plain, tmp_path):
    """Neither as markup nor as formulas nor as commands to a terminal."""
    named = [
        replace(
            with_block(trial, "$\\bad{$[red]\x1b[2J"),
            details={**trial.details, "proxies": {"[bold]snip[/]\x1b[2J": 1.0 + at}},
        )
        for at, trial in enumerate(plain.succeeded)
    ]
    result = Result(SPEC, tuple(named))
    text = as_text(result, 160)
    assert "[bold]snip[/][2J" in text
    assert "$\\bad{$[red][2J" in text
    assert "\x1b" not in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of signs that no font has
        drawn = picture(result, tmp_path / "a.png", beside={"$\\bad{$": result, "$2^$ \x1b": plain})
    assert drawn.stat().st_size > 0


def test_stored_results_are_counted(plain):
    old, *others = plain.trials
    fresh = replace(old, state=TrialState.RUNNING, values={}, details={})
    again = fresh.succeeded(answered(plain.succeeded[0], "search 1, trial 0"))

    text = as_text(Result(SPEC, (again, *others)))
    assert line_of(text, "stored results") == "stored results answered 1 trials"


def test_a_search_that_found_nothing_has_a_summary():
    assert as_text(Result(SPEC, ())).split() == ["trials", "none"]


@pytest.mark.parametrize(
    "objectives",
    [
        ("quality",),
        ("params", "quality"),
        ("quality", "latency_ms", "params"),
    ],
)
def test_equal_results_give_equal_pictures(plain, tmp_path, objectives):
    result = Result(replace(SPEC, objectives=objectives), plain.trials)
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        one, two = (picture(result, tmp_path / f"{at}.{kind}") for at in range(2))
        assert one.read_bytes() == two.read_bytes()
        assert one.read_bytes().startswith(start)
        assert b"matplotlib" not in one.read_bytes()[:600].lower()


def test_a_picture_shows_who_is_beside(plain, tmp_path):
    other = searched(replace(SPEC, seed=1))
    alone = picture(plain, tmp_path / "a.svg").read_bytes()
    beside = picture(plain, tmp_path / "b.svg", beside=[other]).read_bytes()
    named = picture(plain, tmp_path / "c.svg", beside={"another seed": other}).read_bytes()

    assert len({alone, beside, named}) == 3


def test_a_picture_of_what_a_file_brought_back_is_the_same(plain, tmp_path):
    loaded = Result.load(plain.save(tmp_path / "r.json"))
    one, two = picture(plain, tmp_path / "a.svg"), picture(loaded, tmp_path / "b.svg")
    assert one.read_bytes() == two.read_bytes()


def test_what_cannot_be_drawn_is_refused(plain, tmp_path):
    with pytest.raises(SpecError, match=r"ends in .png or .svg, got 'a.pdf'"):
        picture(plain, tmp_path / "a.pdf")
    with pytest.raises(SpecError, match="no trial succeeded"):
        picture(Result(SPEC, ()), tmp_path / "a.png")
    two = Result(replace(SPEC, objectives=("quality", "params")), plain.trials)
    with pytest.raises(
        SpecError, match="beside: random 2: wanted a search for quality, latency_ms"
    ):
        picture(plain, tmp_path / "a.png", beside=[two])
    moved = [replace(t, details={"machine": {"fingerprint": "n"}}) for t in plain.succeeded]
    with pytest.raises(SpecError, match="not of the machine m"):
        picture(plain, tmp_path / "a.png", beside={"there": Result(SPEC, tuple(moved))})
    assert list(tmp_path.iterdir()) == []


def test_drawing_leaves_no_state_behind(plain, tmp_path):
    """In a process of its own: pyplot is not loaded, and settings are as they were."""
    path = plain.save(tmp_path / "r.json")
    code = (
        "import json, sys; from formwright.search import Result, picture\n"
        f"result = Result.load({str(path)!r})\n"
        "import matplotlib\n"
        "def settings():  # to read the backend is to choose one\n"
        "    return {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != 'backend'}\n"
        "before = settings()\n"
        f"picture(result, {str(tmp_path / 'p.png')!r})\n"
        "same = before == settings()\n"
        "print(json.dumps(['matplotlib.pyplot' in sys.modules, 'torch' in sys.modules, same]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == [False, False, True]
