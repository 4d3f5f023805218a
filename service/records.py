"""The nouns of the service: a search as the store keeps it, its events, and the states there are.

It must not know SQL, grpc or the wire. Next: `store/store.py` keeps these, `convert.py` sends them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

from ..search import ArchSpec, SearchSpec, Trial, TrialState, machine_of

Item = TypeVar("Item")


class SearchState(StrEnum):
    """Where a search is."""

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
    SearchState.QUEUED: frozenset({SearchState.RUNNING, SearchState.PAUSED, SearchState.CANCELLED}),
    SearchState.RUNNING: frozenset(
        {
            SearchState.QUEUED,
            SearchState.PAUSED,
            SearchState.SUCCEEDED,
            SearchState.FAILED,
            SearchState.CANCELLED,
        }
    ),
    SearchState.PAUSED: frozenset({SearchState.QUEUED, SearchState.CANCELLED}),
    SearchState.SUCCEEDED: frozenset(),
    SearchState.FAILED: frozenset(),
    SearchState.CANCELLED: frozenset(),
}


class Action(StrEnum):
    """What a user may ask of a search, named as in a sentence: it cannot be ..."""

    CANCEL = "cancelled"
    PAUSE = "paused"
    RESUME = "resumed"
    UPDATE = "updated"
    RENAME = "renamed"
    DELETE = "deleted"


_OPEN = (SearchState.QUEUED, SearchState.RUNNING, SearchState.PAUSED)
_ENDED = (SearchState.SUCCEEDED, SearchState.FAILED, SearchState.CANCELLED)

# action -> state -> the state after it; what is not there is refused. To stay is no change.
ACTIONS: dict[Action, dict[SearchState, SearchState]] = {
    Action.CANCEL: dict.fromkeys([*_OPEN, SearchState.CANCELLED], SearchState.CANCELLED),
    Action.PAUSE: dict.fromkeys(_OPEN, SearchState.PAUSED),
    Action.RESUME: {
        SearchState.PAUSED: SearchState.QUEUED,
        SearchState.QUEUED: SearchState.QUEUED,
        SearchState.RUNNING: SearchState.RUNNING,
    },
    Action.UPDATE: {state: state for state in _OPEN},
    Action.RENAME: {state: state for state in SearchState},
    Action.DELETE: {state: state for state in _ENDED},
}


@dataclass(frozen=True)
class SearchRecord:
    """A search as the store has it. `counts` says how many trials are in which state;
    `last_sequence` is the number of its newest event, `revision` grows with what users change, and
    of those that wait the one of the highest `priority` runs next; `owner` is whose token made it,
    empty if it was made without one. Times are UTC."""

    id: str
    spec: SearchSpec
    state: SearchState
    display_name: str
    error: str
    counts: Mapping[TrialState, int]
    last_sequence: int
    created: datetime
    updated: datetime
    priority: int = 0
    revision: int = 1
    owner: str = ""


@dataclass(frozen=True)
class TrialRecord:
    """A trial as the store has it. `params` are the genes that were proposed; a user's own
    architecture has none, and events leave them out."""

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
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def machine(self) -> str:
        """Fingerprint of the machine that measured it; empty where the details are left out."""
        return machine_of(self)


@dataclass(frozen=True)
class Event:
    """One change of a search, number `sequence` (from 1, without gaps): the search went to `state`
    (then `trial` is None), or `trial` is what one of its trials became. `left` are the numbers of
    those that it pushed off the front as it joined; None if it did not join. `changed` are the
    fields of the search that a user has changed, without a change of state."""

    sequence: int
    time: datetime
    state: SearchState | None = None
    error: str = ""
    trial: TrialRecord | None = None
    left: tuple[int, ...] | None = None
    changed: tuple[str, ...] = ()


class ArtifactState(StrEnum):
    """Where an artefact is."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    READY = "READY"
    FAILED = "FAILED"


@dataclass(frozen=True)
class ArtifactFile:
    """A file of an artefact; `size` in bytes, `sha256` in hexadecimal digits."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class ArtifactRecord:
    """What is kept of a trial, as the store has it: chosen from `seeds` trainings; `done` of
    `total` steps are done, and `step` comes next. Its `files` are there once it is READY."""

    search_id: str
    number: int
    state: ArtifactState
    error: str
    seeds: int
    done: int
    total: int
    step: str
    files: tuple[ArtifactFile, ...]
    created: datetime
    updated: datetime


@dataclass(frozen=True)
class ArtifactClaim:
    """The right to make an artefact until the lease ends; `epoch` as in `Claim`."""

    search_id: str
    spec: SearchSpec
    trial: Trial
    seeds: int
    owner: str
    epoch: int


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
