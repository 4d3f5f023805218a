"""What is known of a search while it runs, and how it looks, on recorded trials and a clock of
numbers."""

import io
import threading
from dataclasses import replace

import pytest
from rich.console import Console

from formwright.search import Board, TrialState, pareto
from formwright.search.evaluate.quiet import VARIABLE, alone
from formwright.search.show import live
from formwright.search.show.live import draw, drawn, showing
from formwright.search.span import Span
from formwright.search.told import seconds_of

from .recorded import SPEC, evaluate, fed, searched, text, transitions

FAILED, SUCCEEDED = TrialState.FAILED, TrialState.SUCCEEDED


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

    spent = sum(sum(seconds_of(event).values()) for event in first if event.state.final)
    assert spent >= 2.5 * free.counts[SUCCEEDED]
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
    result = searched(SPEC, on_two)
    assert board.machines == result.machines
    assert board.curve()[-1] == pytest.approx(result.hypervolume(machine="a"))
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


def drawing():
    """The threads that draw, once each has had time to end."""
    threads = [each for each in threading.enumerate() if each.name == "formwright-board"]
    for thread in threads:
        thread.join(20)
    return [thread for thread in threads if thread.is_alive()]


def test_a_terminal_is_drawn_to_and_left_clean(events, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))  # nobody else measures here
    console = Console(file=io.StringIO(), width=100, height=40, force_terminal=True)
    with showing(SPEC, events[:3], console=console) as seen:
        for event in events[3:]:
            seen(event)

    assert "front so far" in console.file.getvalue() or "running" in console.file.getvalue()
    assert console.file.getvalue().endswith("\x1b[2K") or "\x1b[1A" in console.file.getvalue()
    assert drawing() == []


def test_drawing_stops_when_the_search_raises(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with pytest.raises(RuntimeError, match="over"), drawn(Board(SPEC), console, lambda: 0.0):
        raise RuntimeError("over")
    assert drawing() == []


def test_a_measurement_of_others_does_not_hold_up_the_end(tmp_path, monkeypatch):
    """Who draws waits for it; whoever runs the search does not."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr(live, "FRAME_S", 0.01)
    quiet, waits, over = threading.Event(), threading.Event(), threading.Event()
    working = live.working

    def seen():
        waits.set()
        return working()

    monkeypatch.setattr(live, "working", seen)

    def measure():
        with alone():
            quiet.set()
            over.wait(20)

    measuring = threading.Thread(target=measure)
    measuring.start()
    assert quiet.wait(20)
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with drawn(Board(SPEC), console, lambda: 0.0):
        assert waits.wait(20)
    ended_meanwhile, shown = measuring.is_alive(), console.file.getvalue()
    over.set()
    measuring.join()
    assert drawing() == []

    assert ended_meanwhile
    assert console.file.getvalue() == shown  # nothing is drawn behind the end


class Watched:
    """A trial that tells when something of it is read."""

    def __init__(self, trial, looked_at):
        self._told = trial, looked_at

    def __getattr__(self, name):
        trial, looked_at = self._told
        looked_at.add(trial.number)
        return getattr(trial, name)


@pytest.mark.parametrize("failing", [False, True])
def test_neither_an_event_nor_a_frame_looks_at_all_trials(events, failing):
    """Those that ended long ago and are on no front are not read again, however many they are."""
    looked_at, spec = set(), replace(SPEC, trials=2000)
    base = next(event for event in events if event.state is SUCCEEDED)
    board = Board(spec)
    for number_ in range(1000):
        values = {"quality": 0.1, "latency_ms": 9.0 + number_, "params": 1.0 + number_}
        made = replace(base, number=number_, values=values)
        if failing and number_ % 2:
            made = replace(made, state=FAILED, values={}, error=f"step {number_}")
        board.add(Watched(made, looked_at), float(number_))
    assert len(looked_at) == 1000
    draw(board, 1000.0, 1000.0)

    looked_at.clear()
    last = replace(base, number=1000, values={"quality": 0.2, "latency_ms": 10.0, "params": 2.0})
    board.add(Watched(last, looked_at), 1000.0)
    text(draw(board, 1000.0, 1000.0))
    assert (board.ended, board.paid, len(board.machines)) == (1001, 1001, 1)
    assert sum(board.counts.values()) == 1001
    assert len(board.curve()) > 1
    assert board.reasons(FAILED) == ([("step …", 500)] if failing else [])
    assert looked_at == {0, 1000}


def test_what_is_told_twice_counts_once(events):
    once, twice = Board(SPEC), Board(SPEC)
    for event in events:
        once.add(event)
        twice.add(event)
        if event.state.final:
            assert twice.add(event) == ""
    assert (twice.counts, twice.paid, twice.curve()) == (once.counts, once.paid, once.curve())
    assert twice.reasons(FAILED) == once.reasons(FAILED)
