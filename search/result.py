"""`Result`: the trials of a search, and which of them are best.

It must not know how they were run. Next: `front.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .front import pareto, same_machine
from .objective import metric_named
from .search_spec import SearchSpec
from .trial import Trial, TrialState


@dataclass(frozen=True)
class Result:
    """What a search found so far."""

    spec: SearchSpec
    trials: tuple[Trial, ...]

    @property
    def succeeded(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state is TrialState.SUCCEEDED]

    def front(self, objectives: Sequence[str] = ()) -> list[Trial]:
        """The trials that none other dominates, the best of the first objective first; the
        search's own objectives if none are named. Raises UnknownNameError for a metric that is
        not known, SpecError if latencies of several machines would be compared."""
        names = objectives or self.spec.objectives
        metrics = [metric_named(name, f"objectives[{at}]") for at, name in enumerate(names)]
        return pareto(same_machine(self.succeeded, metrics), metrics)

    def best(self, metric: str = "") -> Trial | None:
        """The best trial by one metric, by the first objective if none is named; None if no trial
        succeeded."""
        front = self.front([metric or self.spec.objectives[0]])
        return front[0] if front else None
