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
from .objective import Measurement
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


# state -> what may come next; PENDING again only with a higher attempt
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
    architecture they mean, and what became of it. `attempt` counts from 1; it grows when the
    worker was lost. `values` and `details` are those of a `Measurement`; `error` is one line."""

    number: int
    params: Mapping[str, Scalar]
    architecture: ArchSpec
    state: TrialState = TrialState.PENDING
    attempt: int = 1
    values: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""

    def started(self) -> Trial:
        return replace(self, state=TrialState.RUNNING, error="")

    def succeeded(self, measured: Measurement) -> Trial:
        return replace(
            self,
            state=TrialState.SUCCEEDED,
            values=dict(measured.values),
            details=dict(measured.details),
        )

    def failed(self, error: str) -> Trial:
        return replace(self, state=TrialState.FAILED, error=one_line(error))

    def pruned(self, why: str) -> Trial:
        return replace(self, state=TrialState.PRUNED, error=one_line(why))

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
        return new.state is TrialState.PENDING and new.attempt == 1
    same = (new.number, dict(new.params), new.architecture)
    if same != (old.number, dict(old.params), old.architecture):
        return False
    step = 1 if new.state is TrialState.PENDING else 0
    return new.attempt == old.attempt + step and new.state in TRANSITIONS[old.state]
