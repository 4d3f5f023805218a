"""What is known of a search while it runs, and how it looks, on recorded trials and a clock of
numbers."""

import io
import threading
from dataclasses import replace

import pytest
from rich.console import Console

from formwright.search import Board, TrialState, pareto
from formwright.search.reasons import commonest
from formwright.search.show.live import draw, drawn, showing
from formwright.search.show.tables import number
from formwright.search.span import Span

from .recorded import SPEC, evaluate, searched, transitions

NAMES = SPEC.objectives
FAILED, PRUNED, SUCCEEDED = TrialState.FAILED, TrialState.PRUNED, TrialState.SUCCEEDED


def fed(events, spec=SPEC, step=2.0):
    """A board that saw an event every `step` seconds, and when it saw the last one."""
    board = Board(spec)
    for at, event in enumerate(events):
        board.add(event, step * at)
    return board, step * (len(events) - 1)


def text(renderable, width=100):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def events():
    return transitions()


def test_a_board_knows_what_the_result_knows(events):
    board, _ = fed(events)
    result = searched()

    assert board.counts == result.states
    assert board.front == result.front()
    assert board.reasons(FAILED) == result.by_reason(FAILED)
    assert board.curve()[-1] == pytest.approx(result.hypervolume())
    assert (board.ended, board.paid) == (24, 24)


def test_the_front_is_right_after_every_event(events):
    board, done = Board(SPEC), []
    for event in events:
        board.add(event)
        done += [event] if event.state is SUCCEEDED else []
        assert board.front == pareto(done, board.metrics)


def test_the_curve_is_the_hypervolume_of_its_time(events):
    board, _ = fed(events)
    ended = [event for event in events if event.state.final]
    span = Span.of([event for event in ended if event.state is SUCCEEDED], board.metrics)

    expected = [span.share([t for t in ended[:n] if t.state is SUCCEEDED]) for n in range(1, 25)]
    assert board.curve() == pytest.approx(expected)
    assert board.curve() == sorted(board.curve())


def test_rate_and_time_left_come_from_what_was_seen():
    """One trial at a time: each runs for 30 s, and the next starts 10 s later."""
    board, at = Board(SPEC), 0.0
    assert board.rate() is None
    assert board.left(0.0) is None
    for event in [e for e in transitions() if e.number < 4]:
        if event.state is not TrialState.PENDING:
            at += 30.0 if event.state.final else 10.0
            board.add(event, at)

    assert board.rate() == pytest.approx(60 / 40)
    assert board.left(at) == pytest.approx(20 * 30)


def test_two_at_once_take_half_the_time_and_what_runs_has_done_its_part():
    board, events = Board(SPEC), [e for e in transitions() if e.number < 4]
    started = [e for e in events if e.state is TrialState.RUNNING]
    ended = [e for e in events if e.state.final]
    for event, at in zip(
        [*started[:2], *ended[:2], *started[2:]], (0, 0, 30, 30, 30, 30), strict=True
    ):
        board.add(event, float(at))

    assert board.left(30.0) == pytest.approx(22 * 30 / 2)
    assert board.left(40.0) == pytest.approx((22 * 30 - 20) / 2)
    assert board.left(1e6) == pytest.approx(20 * 30 / 2)  # stragglers count as about to end


def test_what_was_there_before_counts_but_has_no_time(events):
    board = Board(SPEC)
    for event in events:
        board.add(event)

    assert board.ended == 24
    assert board.rate() is None
    assert board.left(0.0) is None


def test_a_bound_on_seconds_bounds_the_time_left(events):
    first = [event for event in events if event.number < 8]
    free, at = fed(first)
    bound, _ = fed(first, replace(SPEC, seconds=30))

    spent = 2.5 * free.counts[SUCCEEDED]
    assert bound.left(at) == pytest.approx(30 - spent)
    assert bound.left(at) < free.left(at)


def test_latencies_of_two_machines_are_two_fronts():
    def on_two(evaluation):
        measured = evaluate(evaluation)
        name = "b" if measured.values["params"] > 60 else "a"
        return replace(measured, details={**measured.details, "machine": {"fingerprint": name}})

    board, _ = fed(transitions(SPEC, on_two))
    on_a = [t for t in searched(SPEC, on_two).succeeded if t.values["params"] <= 60]

    assert board.machines == ["a", "b"]
    assert board.front == pareto(on_a, board.metrics)
    assert "latencies of 2 machines do not compare" in text(draw(board, 0.0, 0.0))


def test_the_board_as_it_looks(events):
    shown = text(draw(*(lambda fed: (fed[0], fed[1], 75.0))(fed(events[:55]))))

    lines = shown.splitlines()
    assert lines[0] == "running  metaformer on digits, random"
    assert "running, " in lines[1]
    assert "75 s so far, about" in lines[1]
    assert lines[2].startswith("hypervolume 0.")
    assert lines[2].rstrip()[-1] == "█"
    assert "front so far: " in shown
    assert all(len(line) <= 100 for line in lines)


def test_the_board_tells_failures_and_cuts_the_front(events):
    board, at = fed(events)
    shown = text(draw(board, at, at))
    failed = board.counts[FAILED]

    assert failed > 1
    assert f"{failed} failed: {failed} x RuntimeError: diverged in step …" in shown
    assert f"front so far: {len(board.front)}" in shown
    assert shown.count("\n") < 20
    assert "about" not in shown  # it is over


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_narrow_terminal_cuts_architectures_and_no_numbers(events, width):
    board, at = fed(events)
    shown = text(draw(board, at, at), width)

    rows = shown[shown.index("architect") :].splitlines()[2:]
    for trial, row in zip(board.front, rows, strict=False):
        assert row.split()[:4] == [str(trial.number), *(number(trial.values[m]) for m in NAMES)]
        whole = trial.architecture.short()
        assert whole in row or "…" in row
    assert max(len(line) for line in shown.splitlines()) <= width


def test_a_board_of_nothing_is_drawn():
    assert "0/24" in text(draw(Board(SPEC), 0.0, 0.0))


def test_without_a_terminal_there_are_few_lines(events):
    console = Console(file=io.StringIO(), width=200)
    with showing(SPEC, console=console, now=iter(range(10_000)).__next__) as seen:
        for event in events:
            seen(event)

    lines = console.file.getvalue().splitlines()
    assert 10 <= len(lines) <= 12
    assert sum("diverged in step" in line for line in lines) == 1
    assert lines[-1].startswith("24/24  ")


def test_a_terminal_is_drawn_to_and_left_clean(events):
    console = Console(file=io.StringIO(), width=100, height=40, force_terminal=True)
    before = threading.active_count()
    with showing(SPEC, events[:3], console=console) as seen:
        for event in events[3:]:
            seen(event)

    assert "front so far" in console.file.getvalue() or "running" in console.file.getvalue()
    assert console.file.getvalue().endswith("\x1b[2K") or "\x1b[1A" in console.file.getvalue()
    assert threading.active_count() == before


def test_drawing_stops_when_the_search_raises(events):
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="over"), drawn(Board(SPEC), console, lambda: 0.0):
        raise RuntimeError("over")
    assert threading.active_count() == before


def test_reasons_are_one_where_only_numbers_differ():
    reasons = ["took longer than 5 s (a)", "x1 is 3.5", "took longer than 5 s (a)", "x1 is 4e-05"]
    assert commonest(reasons) == [("took longer than 5 s (a)", 2), ("x1 is …", 2)]
    assert commonest(["a # 1", "a # 2"]) == [("a … …", 2)]
    assert commonest([]) == []
    assert commonest(["a", "b", "c", "d"], most=2) == [("a", 1), ("b", 1)]
