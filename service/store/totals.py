"""What there is, in numbers, from one short transaction: for whoever watches over the service.

The counts of trials are kept with their searches, so that nobody counts trials. It must not know
how the numbers are shown. Next: `../metrics.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, Table, and_, case, func, select

from ...search import TrialState
from ..records import ArtifactState, SearchState
from .engine import Database, clock
from .leased import HELD
from .migrate import migration_context
from .schema import artifacts, searches

LIMIT_S = 2.0  # for a statement


@dataclass(frozen=True)
class Totals:
    """Each state has its number, also where that is 0. `leases` are those that hold now, of
    `search` and `artifact`; `oldest_queued_s` is how long the one that has waited longest has been
    QUEUED without a change; `size` is in bytes."""

    searches: Mapping[str, int]
    trials: Mapping[str, int]
    artifacts: Mapping[str, int]
    leases: Mapping[str, int]
    oldest_queued_s: float
    size: int
    revision: str


def totals(database: Database) -> Totals:
    """As of now. Raises DatabaseError."""
    s = searches.c
    with database.read() as connection:
        database.limit(connection, LIMIT_S)
        now = clock(connection)
        waiting = func.min(case((s.state == SearchState.QUEUED, s.updated))).label("waiting")
        counted = [func.sum(s[state.lower()]).label(state) for state in TrialState]
        of_searches = _by_state(connection, searches, now, waiting, *counted)
        of_artifacts = _by_state(connection, artifacts, now)
        since = next((row.waiting for row in of_searches if row.waiting is not None), now)
        return Totals(
            searches=_counts(SearchState, of_searches),
            trials={
                state.value: sum(int(getattr(row, state)) for row in of_searches)
                for state in TrialState
            },
            artifacts=_counts(ArtifactState, of_artifacts),
            leases={
                "search": sum(int(row.held) for row in of_searches),
                "artifact": sum(int(row.held) for row in of_artifacts),
            },
            oldest_queued_s=max(0.0, (now - since).total_seconds()),
            size=database.size(connection),
            revision=", ".join(migration_context(connection).get_current_heads()),
        )


def _by_state(connection: Connection, table: Table, now: datetime, *more: Any) -> list[Row[Any]]:
    """State, how many, how many of them are held, and `more`."""
    c = table.c
    held = func.sum(case((and_(c.state == HELD, c.lease_expires > now), 1), else_=0))
    asked = select(c.state, func.count().label("many"), held.label("held"), *more)
    return list(connection.execute(asked.group_by(c.state)))


def _counts(states: Iterable[StrEnum], rows: Iterable[Row[Any]]) -> dict[str, int]:
    """A state that this version does not know is not counted: another hand wrote it."""
    found = {row.state: row.many for row in rows}
    return {state.value: found.get(state.value, 0) for state in states}
