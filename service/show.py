"""What people see on a terminal: tables, a plot, and a search while it runs.

It must not know the wire or the store. Next: `cli/`; `../search/show/` draws what a search on
this machine shows too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

import plotext
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import one_line
from ..search import Board, arrow, drawn
from ..search import front_table as front_table
from ..search import trials_table as trials_table
from .client import Client
from .convert import BUDGETS
from .errors import ServiceError
from .records import Event, SearchRecord, SearchState, TrialRecord


def plot(
    trials: Sequence[TrialRecord],
    front: Sequence[TrialRecord],
    x: str,
    y: str,
    size: tuple[int, int] = (72, 18),
) -> str:
    """A scatter plot of two metrics, `size` characters; the front stands out from the others."""
    best = {trial.number for trial in front}
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(*size)
    plotext.title("● front   · others")
    for marker, chosen in (("·", [t for t in trials if t.number not in best]), ("●", front)):
        points = [(t.values[x], t.values[y]) for t in chosen if x in t.values and y in t.values]
        if points:
            plotext.scatter(*map(list, zip(*points, strict=True)), marker=marker)
    plotext.xlabel(f"{x} {arrow(x)}")
    plotext.ylabel(f"{y} {arrow(y)}")
    return str(plotext.uncolorize(plotext.build()))


def searches_table(searches: Iterable[SearchRecord]) -> Table:
    """One row a search, the newest first."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("search", min_width=32, no_wrap=True)  # whole, to be named in other commands
    table.add_column("state", min_width=9)
    table.add_column("trials", min_width=6, justify="right")
    for name in ("space", "task", "created", "name"):
        table.add_column(name, overflow="fold")
    for search in searches:
        ended = sum(count for state, count in search.counts.items() if state.final)
        created = search.created.astimezone().strftime("%Y-%m-%d %H:%M")
        trials, spec = f"{ended}/{search.spec.trials}", search.spec
        state = search.state.lower()
        name = one_line(search.display_name)
        row = (search.id, state, trials, spec.space, spec.task, created, name)
        table.add_row(*map(Text, row))
    return table


def follow(client: Client, search: SearchRecord, console: Console) -> SearchState:
    """Shows a search until it has ended: a live board on a terminal, of which the front stays;
    lines elsewhere. Returns the state it ended in."""
    board, state = Board(search.spec, search.state.lower()), search.state
    board.error = search.error
    if not console.is_terminal:
        for event in client.watch(search.id):
            state = event.state or state
            _follow_spec(client, search, board, event)
            if line := take(board, event):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
        return state
    with drawn(board, console, time.time) as frame:
        for event in client.watch(search.id):
            state = event.state or state
            _follow_spec(client, search, board, event)
            with frame.lock:
                take(board, event)
    error = f": {board.error}" if board.error else ""
    end = f"search {search.id} {board.state}{error}"
    console.print(end, highlight=False, markup=False, soft_wrap=True)
    if board.front:
        console.print(front_table(board.front, "front", search.spec.objectives))
    return state


def _follow_spec(client: Client, search: SearchRecord, board: Board, event: Event) -> None:
    """A search that may spend more than it might is drawn so."""
    if any(name in event.changed for name in BUDGETS):
        with suppress(ServiceError):  # the next change may come through
            board.spec = client.get(search.id).spec


def take(board: Board, event: Event) -> str:
    """Tells a board of an event; returns a line about it, empty if it is of no interest by
    itself."""
    if event.trial is not None:
        return board.add(event.trial, event.time.timestamp())
    board.state, board.error = (event.state or board.state).lower(), event.error
    return f"search {board.state}" + (f": {board.error}" if board.error else "")
