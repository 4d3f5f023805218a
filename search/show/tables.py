"""Tables of trials and the words for one: the same in a live board, a summary and the service.

It must not know where trials come from. Next: `board.py`, `summary.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from ...errors import one_line
from ..objective import METRICS, Direction
from ..told import Told
from ..trial import TrialState

LONGEST_ERROR = 160  # characters in a table; whoever wants all reads the trial


def trials_table(trials: Iterable[Told], title: str, metrics: Sequence[str]) -> Table:
    """One row a trial: its state, its metrics and its architecture, or why there are none."""
    return _table(trials, title, metrics, states=True)


def front_table(
    trials: Iterable[Told], title: str, metrics: Sequence[str], fold: bool = True
) -> Table:
    """The same for trials that have all succeeded; without `fold`, a line each, cut if need be."""
    table = _table(trials, title, metrics, states=False)
    if not fold:
        last = table.columns[-1]
        last.no_wrap, last.overflow, last.ratio, table.expand = True, "ellipsis", 1, True
    return table


def _table(trials: Iterable[Told], title: str, metrics: Sequence[str], states: bool) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("trial", justify="right", min_width=len("trial"))
    if states:
        table.add_column("state")
    for name in metrics:
        said = f"{name} {arrow(name)}"
        table.add_column(said, justify="right", min_width=len(said))
    table.add_column("architecture", overflow="fold")
    for trial in trials:
        state = [trial.state.lower()] if states else []
        numbers = [number(trial.values[m]) if m in trial.values else "" for m in metrics]
        what = trial.architecture.short()
        if trial.error:
            what += f"\n{one_line(trial.error, LONGEST_ERROR)}"
        table.add_row(str(trial.number), *state, *numbers, Text(what))
    return table


def trial_line(trial: Told, metrics: Sequence[str]) -> str:
    """One line about a trial that ended or is tried again; empty for the ways in between."""
    if trial.state is TrialState.SUCCEEDED:
        numbers = "  ".join(f"{m} {number(trial.values[m])}" for m in metrics if m in trial.values)
        return f"trial {trial.number}: {numbers}  {trial.architecture.short()}"
    if trial.error and trial.state is not TrialState.RUNNING:
        return f"trial {trial.number} {trial.state.lower()}: {trial.error}"
    return ""


def number(value: float) -> str:
    """Four digits that matter; whole numbers whole.

    >>> number(12345.0), number(0.98765)
    ('12,345', '0.9877')
    """
    return f"{int(value):,}" if abs(value) >= 100 and value == int(value) else f"{value:.4g}"


def arrow(metric: str) -> str:
    """Which way is better."""
    return "↑" if METRICS[metric].direction is Direction.MAXIMIZE else "↓"


def clock(seconds: float) -> str:
    """How long that is, as people say it.

    >>> clock(8), clock(95), clock(600), clock(9000)
    ('8 s', '95 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
