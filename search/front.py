"""Which trials are best: domination and the Pareto front. Pure; property-tested.

It must not know where trials come from: anything with `values` will do. Next: `result.py`.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from .errors import SpecError
from .objective import Direction, Metric


class Measured(Protocol):
    """A trial, as far as comparing goes."""

    @property
    def values(self) -> Mapping[str, float]: ...

    @property
    def details(self) -> Mapping[str, Any]: ...


M = TypeVar("M", bound=Measured)
UNNAMED = "unnamed"  # stands for the machine of the trials that tell none, beside those that do


def dominates(a: Mapping[str, float], b: Mapping[str, float], metrics: Sequence[Metric]) -> bool:
    """Whether `a` is at least as good as `b` in every metric, and better in one.

    >>> from .objective import METRICS
    >>> both = [METRICS["quality"], METRICS["params"]]
    >>> dominates({"quality": 0.9, "params": 10}, {"quality": 0.9, "params": 20}, both)
    True
    """
    pairs = [(_cost(a, metric), _cost(b, metric)) for metric in metrics]
    return all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)


def pareto(trials: Iterable[M], metrics: Sequence[Metric]) -> list[M]:
    """The trials that no other dominates, the best of the first metric first. Trials with the
    same values all stay. A trial without one of the values is left out.

    In cost order whoever dominates a trial stands before it, and is on the front or behind
    somebody who is: each trial is compared with the front so far only.
    """
    known = [t for t in trials if all(metric.name in t.values for metric in metrics)]
    known.sort(key=lambda t: [_cost(t.values, metric) for metric in metrics])
    front: list[M] = []
    for trial in known:
        if not any(dominates(other.values, trial.values, metrics) for other in front):
            front.append(trial)
    return front


def joins(trial: M, front: list[M], metrics: Sequence[Metric]) -> bool:
    """Whether the trial belongs on the front, which is then changed to be the `pareto` of both: who
    is dominated by it leaves. O(members), whatever the number of trials before."""
    lacks = any(metric.name not in trial.values for metric in metrics)
    if lacks or any(dominates(other.values, trial.values, metrics) for other in front):
        return False
    front[:] = [other for other in front if not dominates(trial.values, other.values, metrics)]
    insort(front, trial, key=lambda t: [_cost(t.values, metric) for metric in metrics])
    return True


def same_machine(trials: Sequence[M], metrics: Sequence[Metric], machine: str = "") -> list[M]:
    """The trials that may be compared: where a latency counts, those of one machine fingerprint;
    `UNNAMED` chooses the trials that tell none.

    Raises SpecError if there are several and `machine` does not choose one.
    """
    if not machine and not any(metric.of_machine for metric in metrics):
        return list(trials)
    machines = sorted({machine_of(trial) or UNNAMED for trial in trials})
    if machine:
        return [trial for trial in trials if (machine_of(trial) or UNNAMED) == machine]
    if len(machines) > 1:
        known = ", ".join(machines)
        raise SpecError(
            f"latencies of different machines do not compare; one of {known}", "machine"
        )
    return list(trials)


def machine_of(trial: Measured) -> str:
    """The fingerprint of the machine that measured the trial, empty if it does not say."""
    machine = trial.details.get("machine")
    return str(machine.get("fingerprint", "")) if isinstance(machine, Mapping) else ""


def _cost(values: Mapping[str, float], metric: Metric) -> float:
    value = values[metric.name]
    return -value if metric.direction is Direction.MAXIMIZE else value
