"""`Trial`: one candidate on its way through a search, and which ways there are.

Frozen: a transition makes a new one. The table `TRANSITIONS` is what every log enforces. It must
not know who keeps it. Next: `run/log.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from ..errors import one_line
from .objective import METRICS, Measurement
from .spec import ArchSpec, Scalar


class TrialState(StrEnum):
    """Where a trial is."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    PRUNED = "PRUNED"
    FAILED = "FAILED"

    @property
    def final(self) -> bool:
        return not TRANSITIONS[self]


# state -> what may come next; PENDING again only with the next attempt, or on the next rung
TRANSITIONS: dict[TrialState, frozenset[TrialState]] = {
    TrialState.PENDING: frozenset({TrialState.RUNNING, TrialState.PRUNED}),
    TrialState.RUNNING: frozenset(
        {TrialState.SUCCEEDED, TrialState.PRUNED, TrialState.FAILED, TrialState.PENDING}
    ),
    TrialState.SUCCEEDED: frozenset(),
    TrialState.PRUNED: frozenset(),
    TrialState.FAILED: frozenset(),
}


@dataclass(frozen=True)
class Trial:
    """Candidate `number` (from 0) of a search: the genes `params` that were proposed, the
    architecture they mean, and what became of it; a user's own architecture has no genes. `rung` is
    the one that it is on, from 0. `attempt` counts from 1 on each rung; it grows when the worker
    was lost. `values` and `details` are what the rungs so far have measured; `error` is one line.
    """

    number: int
    params: Mapping[str, Scalar]
    architecture: ArchSpec
    state: TrialState = TrialState.PENDING
    attempt: int = 1
    rung: int = 0
    values: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    def started(self) -> Trial:
        return replace(self, state=TrialState.RUNNING, error="")

    def succeeded(self, measured: Measurement) -> Trial:
        return replace(self._with(measured), state=TrialState.SUCCEEDED)

    def climbed(self, measured: Measurement) -> Trial:
        """To the next rung, where it waits."""
        pending = TrialState.PENDING
        of_rungs = {"rungs": [*self.details.get("rungs", ()), dict(measured.values)]}
        here = self._with(Measurement(measured.values, {**measured.details, **of_rungs}))
        return replace(here, state=pending, attempt=1, rung=self.rung + 1)

    def _with(self, measured: Measurement) -> Trial:
        """What was measured on this rung joins what was before; what it took adds up."""
        values, details = {**self.values, **measured.values}, {**self.details, **measured.details}
        if not any(METRICS[name].of_machine for name in measured.values if name in METRICS):
            kept = {"machine": self.details["machine"]} if "machine" in self.details else {}
            details |= kept  # the one that measured the latencies
        if before := self.details.get("seconds"):
            now = measured.details.get("seconds", {})
            stages = {**before, **now}
            details["seconds"] = {s: round(before.get(s, 0) + now.get(s, 0), 3) for s in stages}
        return replace(self, values=values, details=details)

    def failed(self, error: str) -> Trial:
        return replace(self, state=TrialState.FAILED, error=one_line(error))

    def charged(self, stage: str, seconds: float) -> Trial:
        """The same, with time that was spent on it without a result."""
        spent = dict(self.details.get("seconds", {}))
        spent[stage] = round(spent.get(stage, 0) + seconds, 3)
        return replace(self, details={**self.details, "seconds": spent})

    def pruned(self, why: str, measured: Measurement | None = None) -> Trial:
        """It was stopped: `why` says by whom or what."""
        stopped = self._with(measured) if measured else self
        return replace(stopped, state=TrialState.PRUNED, error=one_line(why))

    def stopped(self, why: str) -> Trial:
        """Pruned by the ladder, after the rung before the one that it waits on."""
        marked = replace(self, details={**self.details, "stopped": self.rung - 1})
        return marked.pruned(why)

    def audited(self) -> Trial:
        """The same, marked as one that the ladder has stopped and that goes on all the same."""
        return replace(self, details={**self.details, "audited": self.rung})

    def again(self, why: str) -> Trial:
        """The next attempt, because the worker of this one was lost."""
        pending = TrialState.PENDING
        return replace(self, state=pending, attempt=self.attempt + 1, error=one_line(why))


def follows(new: Trial, old: Trial | None) -> bool:
    """Whether a log may replace `old` (None: no such trial yet) by `new`.

    >>> from .spec import ArchSpec
    >>> first = Trial(0, {}, ArchSpec.of_images((1, 8, 8), 10, 2, 32, ()))
    >>> follows(first, None), follows(first.started(), first), follows(first, first)
    (True, True, False)
    """
    if old is None:
        return new.state is TrialState.PENDING and (new.rung, new.attempt) == (0, 1)
    same = (new.number, dict(new.params), new.architecture)
    if same != (old.number, dict(old.params), old.architecture):
        return False
    here, tried, climbed = (new.rung, new.attempt), (old.rung, old.attempt + 1), (old.rung + 1, 1)
    allowed = [tried, climbed] if new.state is TrialState.PENDING else [(old.rung, old.attempt)]
    return here in allowed and new.state in TRANSITIONS[old.state]
