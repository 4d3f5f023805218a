"""Tables of trials and the words for one: the same in a live board, a summary and the service.

It must not know where trials come from. Next: `fitted.py`, which lays tables out; `board.py`,
`summary.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...errors import one_line
from ..objective import METRICS, Direction
from ..told import Told
from ..trial import TrialState
from .fitted import Column, Fitted

LONGEST_ERROR = 160  # characters in a table; whoever wants all reads the trial
HUGE = 1e15
LONGEST_SHORT = 2000  # of an architecture


def trials_table(trials: Iterable[Told], title: str, metrics: Sequence[str]) -> Fitted:
    """One row a trial: its state, its metrics and its architecture, or why there are none; for
    `rich` to print."""
    return _table(list(trials), title, metrics, states=True)


def front_table(
    trials: Iterable[Told], title: str, metrics: Sequence[str], fold: bool = True
) -> Fitted:
    """The same for trials that have all succeeded; without `fold`, architectures are cut if need
    be."""
    return _table(list(trials), title, metrics, states=False, cut=not fold)


def _table(
    trials: Sequence[Told], title: str, metrics: Sequence[str], states: bool, cut: bool = False
) -> Fitted:
    columns = [Column("trial", "trial")]
    columns += [Column("state", "state", words=True)] if states else []
    columns += [Column(f"{name} {arrow(name)}", f"{brief(name)} {arrow(name)}") for name in metrics]
    rows, texts = [], []
    for trial in trials:
        state = [trial.state.lower()] if states else []
        numbers = [number(trial.values[m]) if m in trial.values else "" for m in metrics]
        rows.append([str(trial.number), *state, *numbers])
        error = f"\n{one_line(trial.error, LONGEST_ERROR)}" if trial.error else ""
        texts.append(what(trial) + error)
    return Fitted(title, columns, rows, "architecture", texts, cut)


def trial_line(trial: Told, metrics: Sequence[str]) -> str:
    """One line about a trial that ended or is tried again; empty for the ways in between."""
    if trial.state is TrialState.SUCCEEDED:
        numbers = "  ".join(f"{m} {number(trial.values[m])}" for m in metrics if m in trial.values)
        return f"trial {trial.number}: {numbers}  {what(trial)}"
    if trial.error and trial.state is not TrialState.RUNNING:
        return f"trial {trial.number} {trial.state.lower()}: {one_line(trial.error)}"
    return ""


def what(trial: Told, longest: int = LONGEST_SHORT) -> str:
    """Its architecture in short, as a line that can be printed: blocks may have any name."""
    return one_line(trial.architecture.short(), longest)


def brief(metric: str) -> str:
    """The name without its unit.

    >>> brief("latency_p95_ms"), brief("peak_bytes")
    ('latency_p95', 'peak')
    """
    return metric.removesuffix("_ms").removesuffix("_bytes")


def number(value: float) -> str:
    """Four digits that matter; whole numbers whole, as far as a float tells them apart.

    >>> number(12345.0), number(0.98765), number(float("inf")), number(1.7e308)
    ('12,345', '0.9877', 'inf', '1.7e+308')
    """
    whole = 100 <= abs(value) < HUGE and value % 1 == 0
    return f"{int(value):,}" if whole else f"{value:.4g}"


def share_of_box(share: float, estimated: bool) -> str:
    """A hypervolume, and whether it is an estimate.

    >>> share_of_box(0.7421, False), share_of_box(0.7421, True)
    ('0.742', 'about 0.742 (estimated)')
    """
    return f"about {share:.3f} (estimated)" if estimated else f"{share:.3f}"


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
