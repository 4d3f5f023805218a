"""A search while it runs, on standard error: a board on a terminal, a few quiet lines elsewhere.

Drawing waits while a latency is measured on this machine. It must not know what runs the search:
`showing` yields whom to tell. Next: `board.py`, which knows what is shown.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ...errors import one_line
from ..errors import PoolError
from ..evaluate.quiet import working
from ..reasons import form
from ..search_spec import SearchSpec
from ..span import is_estimated
from ..told import Told
from ..trial import TrialState
from .board import Board
from .tables import clock, front_table, share_of_box

ROWS = 8  # of the front
LONGEST_REASON = 60  # characters
FRAME_S = 0.5
PARTING_S = 0.5  # for a frame that is being drawn
LEVELS = "▁▂▃▄▅▆▇█"

ENDS_WITH_A_REASON = (TrialState.FAILED, TrialState.PRUNED)

Seen = Callable[[Told], None]


@contextmanager
def showing(
    spec: SearchSpec,
    before: Iterable[Told] = (),
    *,
    console: Console | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Iterator[Seen]:
    """Shows the search `spec` inside the `with`, on standard error if no console is given; what it
    yields is to be called with every transition of every trial. `before` is how trials were left by
    whoever ran the search until now."""
    console, board = console or Console(stderr=True), Board(spec)
    for trial in before:
        board.add(trial)
    if not console.is_terminal:
        yield _says(board, console, now)
        return
    with drawn(board, console, now) as frame:

        def seen(trial: Told) -> None:
            with frame.lock:
                board.add(trial, now())

        yield seen


def _says(board: Board, console: Console, now: Callable[[], float]) -> Seen:
    """A line for each tenth of the budget, and for each reason that is new."""
    known: set[tuple[TrialState, str]] = set()
    tenth = [0]

    def seen(trial: Told) -> None:
        line = board.add(trial, now())
        key = (trial.state, form(trial.error))
        if trial.state in ENDS_WITH_A_REASON and key not in known:
            known.add(key)
            _say(console, f"{_progress(board)}  {line}")
        if trial.state.final and (reached := 10 * board.paid // board.spec.trials) > tenth[0]:
            tenth[0] = reached
            _say(console, _glance(board, now()))

    return seen


def _glance(board: Board, now: float) -> str:
    words = [f"{_progress(board)}  {len(board.front)} on the front"]
    words += [f"{n} {state.lower()}" for state, n in board.counts.items() if state.final]
    words += [f"about {clock(left)} left"] if (left := board.left(now)) else []
    return ", ".join(words)


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _progress(board: Board) -> str:
    return f"{board.paid}/{board.spec.trials}"


class Drawn:
    """A board as it is at the time of drawing, which may be in another thread than its feeding."""

    def __init__(self, board: Board, now: Callable[[], float]) -> None:
        self.board, self.lock, self._now, self._start = board, threading.Lock(), now, now()

    def __rich__(self) -> RenderableType:
        with self.lock:
            at = self._now()
            return draw(self.board, at, at - self._start)


@contextmanager
def drawn(board: Board, console: Console, now: Callable[[], float]) -> Iterator[Drawn]:
    """Draws the board on a terminal until the end of the `with`; then nothing of it stays. Whoever
    feeds it meanwhile holds the `lock`."""
    frame, over = Drawn(board, now), threading.Event()
    live = Live(frame, console=console, auto_refresh=False, transient=True)

    def refresh() -> None:
        while not over.wait(FRAME_S):
            try:
                with working():  # not while a latency is being measured
                    if not over.is_set():
                        live.refresh()
            except PoolError:  # no locks can be kept here, so nobody measures here
                live.refresh()

    drawing = threading.Thread(target=refresh, name="formwright-board", daemon=True)
    with live:
        live.refresh()
        drawing.start()
        try:
            yield frame
        finally:
            over.set()
            # it may be waiting for somebody's measurement, after which it will draw no more
            drawing.join(PARTING_S)


def draw(board: Board, now: float, elapsed: float) -> RenderableType:
    """The board at `now`, on the clock that it is fed with, after `elapsed` seconds. What does not
    fit on a small terminal is cut at the end."""
    parts: list[RenderableType] = [_head(board), _bar(board, now, elapsed)]
    if curve := board.curve():
        share = share_of_box(curve[-1], is_estimated(board.metrics))
        parts.append(Text(f"hypervolume {share} of the box so far  {spark(curve)}"))
    parts += [line for state in ENDS_WITH_A_REASON if (line := _reasons(board, state))]
    if len(board.machines) > 1:
        said = f"latencies of {len(board.machines)} machines do not compare; these are of one"
        parts.append(Text(said))
    if front := board.front:
        more = f", the best {ROWS}" if len(front) > ROWS else ""
        title = f"front so far: {len(front)}{more}"
        parts.append(front_table(front[:ROWS], title, board.spec.objectives, fold=False))
    return Group(*parts)


def _head(board: Board) -> Text:
    spec = board.spec
    said = Text.assemble((board.state, "bold"), f"  {spec.space} on {spec.task}, {spec.sampler}")
    return said.append(f": {one_line(board.error, LONGEST_REASON)}") if board.error else said


def _bar(board: Board, now: float, elapsed: float) -> Table:
    rate, left = board.rate(), board.left(now)
    words = [f"{board.counts.get(TrialState.RUNNING, 0)} running"]
    words += [f"{rate:.3g}/min"] if rate is not None else []
    words += [f"{clock(elapsed)} so far"]
    words += [f"about {clock(left)} left"] if left else []
    row = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=board.spec.trials, completed=board.paid, width=24)
    row.add_row(bar, _progress(board), ", ".join(words))
    return row


def _reasons(board: Board, state: TrialState) -> Text | None:
    count = board.counts.get(state, 0)
    if not count:
        return None
    reasons = ((one_line(why, LONGEST_REASON), n) for why, n in board.reasons(state))
    return Text(f"{count} {state.lower()}: " + "; ".join(f"{n} x {why}" for why, n in reasons))


def spark(curve: Sequence[float]) -> str:
    """The curve from its lowest to its highest value, a character a step.

    >>> spark([0.0, 0.5, 1.0])
    '▁▅█'
    """
    low, high = min(curve), max(curve)
    steps = len(LEVELS) - 1
    return "".join(LEVELS[round((x - low) / (high - low or 1.0) * steps)] for x in curve)
