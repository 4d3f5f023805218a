"""Tables of trials on terminals of any width, names and errors that are not as one expects, and
reasons that count as one."""

from dataclasses import replace

import pytest

from formwright.search import Board, TrialState, front_table, trials_table
from formwright.search.reasons import commonest
from formwright.search.show.live import draw
from formwright.search.show.tables import number, trial_line

from .recorded import SPEC, fed, text, transitions, with_block

NAMES = SPEC.objectives
FAILED, SUCCEEDED = TrialState.FAILED, TrialState.SUCCEEDED


@pytest.fixture(scope="module")
def events():
    return transitions()


def numbers_of(trial, names=NAMES):
    return [str(trial.number), *(number(trial.values[m]) for m in names)]


@pytest.mark.parametrize("width", [70, 80, 140])
def test_a_narrow_terminal_cuts_architectures_and_no_numbers(events, width):
    board, at = fed(events)
    shown = text(draw(board, at, at), width)

    rows = shown[shown.index("architect") :].splitlines()[2:]
    for trial, row in zip(board.front, rows, strict=False):
        assert row.split()[:4] == numbers_of(trial)
        whole = trial.architecture.short()
        assert whole in row or "…" in row
    assert max(len(line) for line in shown.splitlines()) <= width


@pytest.mark.parametrize("width", [40, 60])
def test_a_narrower_one_has_architectures_below_their_numbers(events, width):
    board, at = fed(events)
    lines = text(draw(board, at, at), width).splitlines()

    start = lines.index("trial  quality ↑  latency ↓  params ↓") + 1
    for row, trial in enumerate(board.front):
        numbers, below = lines[start + 2 * row : start + 2 * row + 2]
        assert numbers.split() == numbers_of(trial)
        whole = trial.architecture.short()
        assert below.strip() == whole or below.endswith("…")
    assert max(map(len, lines)) <= width
    folded = text(front_table(board.front, "front", NAMES), width)
    for trial in board.front:
        assert trial.architecture.short() in " ".join(folded.split())


def test_numbers_that_do_not_fit_on_a_line_are_on_two(events):
    board, _ = fed(events)
    lines = text(front_table(board.front, "front", NAMES), 20).splitlines()
    assert lines[1:3] == ["trial  quality ↑", "latency ↓  params ↓"]
    first = board.front[0]
    assert [word for line in lines[3:5] for word in line.split()] == numbers_of(first)


def test_failed_trials_keep_state_and_reason_below(events):
    trial = next(event for event in events if event.state is FAILED)
    lines = text(trials_table([trial], "[b]all[/b]", NAMES), 40).splitlines()
    assert lines[0] == "[b]all[/b]"
    assert lines[1].split() == ["trial", "state", "quality", "↑", "latency", "↓"]
    assert lines[3].split() == [str(trial.number), "failed"]
    assert trial.error[:20] in " ".join(lines[4:])


def test_names_and_errors_command_no_terminal(events):
    good = next(event for event in events if event.state is SUCCEEDED)
    trial = with_block(good, "\x1b[2J[red]\u202e$x$")
    failed = replace(trial, state=FAILED, values={}, error="bad\x1b]0;owned\x07\x9b2J")
    board = Board(SPEC)
    lines = [board.add(trial), board.add(replace(failed, number=trial.number + 1))]
    shown = [*lines, text(draw(board, 0.0, 0.0), 300), trial_line(failed, NAMES)]
    shown += [text(trials_table([trial, failed], "t", NAMES), width) for width in (300, 40)]

    for said in shown:
        assert all(char.isprintable() for char in said.replace("\n", ""))
    assert "[2J[red]$x$" in shown[0]
    assert "[2J[red]$x$" in shown[2]
    assert lines[1].endswith("failed: bad]0;owned2J")


def test_reasons_are_one_where_only_numbers_differ():
    reasons = ["took longer than 5 s (a)", "x1 is 3.5", "took longer than 5 s (a)", "x1 is 4e-05"]
    assert commonest(reasons) == [("took longer than 5 s (a)", 2), ("x1 is …", 2)]
    assert commonest(["a # 1", "a # 2"]) == [("a … …", 2)]
    assert commonest(["layer # bad", "layer 3 bad", "layer 4 bad"]) == [("layer … bad", 3)]
    assert commonest(["layer 3 bad", "layer # bad", "layer # bad"]) == [("layer … bad", 3)]
    assert commonest([]) == []
    assert commonest(["a", "b", "c", "d"], most=2) == [("a", 1), ("b", 1)]
