"""The nouns of the service: a search as the store keeps it, its events, and the states there are.

It must not know SQL, grpc or the wire. Next: `store/store.py` keeps these, `convert.py` sends them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

from ..search import ArchSpec, SearchSpec, TrialState, machine_of

Item = TypeVar("Item")


class SearchState(StrEnum):
    """Where a search is. PAUSED is reserved."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def final(self) -> bool:
        return not SEARCH_TRANSITIONS[self]


# state -> what may come next
SEARCH_TRANSITIONS: dict[SearchState, frozenset[SearchState]] = {
    SearchState.QUEUED: frozenset({SearchState.RUNNING, SearchState.CANCELLED}),
    SearchState.RUNNING: frozenset(
        {SearchState.SUCCEEDED, SearchState.FAILED, SearchState.CANCELLED, SearchState.QUEUED}
    ),
    SearchState.PAUSED: frozenset({SearchState.QUEUED, SearchState.CANCELLED}),
    SearchState.SUCCEEDED: frozenset(),
    SearchState.FAILED: frozenset(),
    SearchState.CANCELLED: frozenset(),
}


@dataclass(frozen=True)
class SearchRecord:
    """A search as the store has it. `counts` says how many trials are in which state;
    `last_sequence` is the number of its newest event. Times are UTC."""

    id: str
    spec: SearchSpec
    state: SearchState
    display_name: str
    error: str
    counts: Mapping[TrialState, int]
    last_sequence: int
    created: datetime
    updated: datetime


@dataclass(frozen=True)
class TrialRecord:
    """A trial as the store has it, without the genes that were proposed."""

    search_id: str
    number: int
    state: TrialState
    attempt: int
    fingerprint: str
    architecture: ArchSpec
    values: Mapping[str, float]
    details: Mapping[str, Any]
    error: str
    created: datetime
    updated: datetime
    rung: int = 0

    @property
    def machine(self) -> str:
        """Fingerprint of the machine that measured it; empty where the details are left out."""
        return machine_of(self)


@dataclass(frozen=True)
class Event:
    """One change of a search, number `sequence` (from 1, without gaps): the search went to `state`
    (then `trial` is None), or `trial` is what one of its trials became."""

    sequence: int
    time: datetime
    state: SearchState | None = None
    error: str = ""
    trial: TrialRecord | None = None


@dataclass(frozen=True)
class Claim:
    """The right to run a search until the lease ends. `epoch` grows with each claim, and whoever
    writes with an older one is refused."""

    search: SearchRecord
    owner: str
    epoch: int


@dataclass(frozen=True)
class Page(Generic[Item]):
    """A piece of a list, and where the next begins (empty: there is none)."""

    items: tuple[Item, ...] = ()
    next: str = ""
