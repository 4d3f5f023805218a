"""What people see on a terminal: tables, a plot, and a search while it runs.

It must not know the wire or the store. Next: `cli.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import plotext
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ..errors import one_line
from ..search import METRICS, Direction, TrialState, pareto
from .client import Client
from .records import Event, SearchRecord, SearchState, TrialRecord

LONGEST_ERROR = 160  # characters in a table; `trials --json` has all


def trials_table(trials: Iterable[TrialRecord], title: str, metrics: Sequence[str]) -> Table:
    """One row a trial: its state, its metrics and its architecture, or why there are none."""
    return _table(trials, title, metrics, states=True)


def front_table(trials: Iterable[TrialRecord], title: str, metrics: Sequence[str]) -> Table:
    """The same for trials that have all succeeded."""
    return _table(trials, title, metrics, states=False)


def _table(
    trials: Iterable[TrialRecord], title: str, metrics: Sequence[str], states: bool
) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("trial", justify="right")
    if states:
        table.add_column("state")
    for name in metrics:
        table.add_column(f"{name} {arrow(name)}", justify="right")
    table.add_column("architecture", overflow="fold")
    for trial in trials:
        state = [trial.state.lower()] if states else []
        numbers = [number(trial.values[m]) if m in trial.values else "" for m in metrics]
        what = trial.architecture.short()
        if trial.error:
            what += f"\n{one_line(trial.error, LONGEST_ERROR)}"
        table.add_row(str(trial.number), *state, *numbers, Text(what))
    return table


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


class Board:
    """A search while it runs: how far it is, and the front so far. Fed with events."""

    def __init__(self, search: SearchRecord, console: Console) -> None:
        self._metrics = search.spec.objectives
        self._trials: dict[int, TrialRecord] = {}
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[now]}"),
            console=console,
        )
        total = search.spec.trials
        self._task = self._bar.add_task("queued", total=total, now="")
        self.state = search.state
        self.error = search.error

    def add(self, event: Event) -> str:
        """Takes an event; returns a line about it, empty if it is of no interest by itself."""
        if event.trial is None:
            self.state, self.error = event.state or self.state, event.error
            line = f"search {self.state.lower()}" + (f": {self.error}" if self.error else "")
        else:
            self._trials[event.trial.number] = event.trial
            line = describe(event.trial, self._metrics)
        counts = Counter(trial.state for trial in self._trials.values())
        ended = sum(count for state, count in counts.items() if state.final)
        now = ", ".join(f"{n} {state.lower()}" for state, n in sorted(counts.items()))
        self._bar.update(self._task, completed=ended, description=self.state.lower(), now=now)
        return line

    def front(self) -> list[TrialRecord]:
        done = [t for t in self._trials.values() if t.state is TrialState.SUCCEEDED]
        return pareto(done, [METRICS[name] for name in self._metrics])

    def __rich__(self) -> Group:
        front = self.front()
        rows = [front_table(front, "front so far", self._metrics)] if front else []
        return Group(self._bar, *rows)  # what does not fit on a small terminal is cut at the end


def searches_table(searches: Iterable[SearchRecord]) -> Table:
    """One row a search, the newest first."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("search", "state", "trials", "space", "task", "created", "name"):
        table.add_column(name, justify="right" if name == "trials" else "left")
    for search in searches:
        ended = sum(count for state, count in search.counts.items() if state.final)
        created = search.created.astimezone().strftime("%Y-%m-%d %H:%M")
        trials, spec = f"{ended}/{search.spec.trials}", search.spec
        state = search.state.lower()
        row = (search.id, state, trials, spec.space, spec.task, created, search.display_name)
        table.add_row(*map(Text, row))
    return table


def follow(client: Client, search: SearchRecord, console: Console) -> SearchState:
    """Shows a search until it has ended: a live board on a terminal, of which the front stays;
    lines elsewhere. Returns the state it ended in."""
    board = Board(search, console)
    if not console.is_terminal:
        for event in client.watch(search.id):
            if line := board.add(event):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
        return board.state
    with Live(board, console=console, refresh_per_second=4, transient=True):
        for event in client.watch(search.id):
            board.add(event)
    error = f": {board.error}" if board.error else ""
    end = f"search {search.id} {board.state.lower()}{error}"
    console.print(end, highlight=False, markup=False, soft_wrap=True)
    if front := board.front():
        console.print(front_table(front, "front", search.spec.objectives))
    return board.state


def describe(trial: TrialRecord, metrics: Sequence[str]) -> str:
    """One line about a trial that ended or is tried again; empty for the ways in between."""
    if trial.state is TrialState.SUCCEEDED:
        numbers = "  ".join(f"{m} {number(trial.values[m])}" for m in metrics)
        return f"trial {trial.number}: {numbers}  {trial.architecture.short()}"
    if trial.error and trial.state is not TrialState.RUNNING:
        return f"trial {trial.number} {trial.state.lower()}: {trial.error}"
    return ""


def number(value: float) -> str:
    """Four digits that matter; whole numbers whole."""
    return f"{int(value):,}" if value == int(value) and abs(value) >= 100 else f"{value:.4g}"


def arrow(metric: str) -> str:
    """Which way is better."""
    return "↑" if METRICS[metric].direction is Direction.MAXIMIZE else "↓"
