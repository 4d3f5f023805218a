"""`Retention`: what has ended long ago is removed, a search or an artefact at a time.

Each goes in a transaction of its own, as `Store.delete_search` removes it, and others get as much
time to write as that has taken. Architectures stay, as they always do: another search may be about
to use one. It must not know who asks. Next: `writes.py`, `artifacts.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, exists, func, select

from ..records import ArtifactState, SearchState
from .artifacts import delete_artifacts
from .engine import Database, clock
from .queries import IN_ONE, visible
from .schema import artifacts, events, files, front, searches, trials
from .writes import delete_search

PAGES = 512  # of a SQLite file, that are cut off at once
_ENDED = [state.value for state in SearchState if state.final]
_MADE = [ArtifactState.READY.value, ArtifactState.FAILED.value]
Gone = Callable[[int, int], bool]  # whether this artefact of that search goes, or has gone, too


@dataclass(frozen=True)
class Removed:
    """What went, or would: a search, or the artefact of its trial `number`. `size` is about how
    many bytes that was: events, what is said of trials, and files that nobody else has."""

    search_id: str
    display_name: str
    number: int | None
    last_change: datetime
    size: int


class Retention:
    """A part of the store, `Store.retention`. Raises DatabaseError where the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def searches(
        self, days: float, *, keep_front: bool = False, dry_run: bool = False
    ) -> Iterator[Removed]:
        """Removes searches that have ended, and that nothing has changed for so many days, nor
        their artefacts; each comes when it is gone. With `keep_front` those stay whose front has
        an artefact that is READY; a `dry_run` removes nothing."""
        age = timedelta(days=days)
        with self._database.read() as connection:
            wanted = select(searches.c.key).where(_old_search(connection, age, keep_front))
            keys = connection.execute(wanted.order_by(searches.c.key)).scalars().all()
        going, counted = set(keys) if dry_run else set(), set[str]()
        for key in keys:
            with self._a_moment(dry_run) as connection:
                if not dry_run:  # who waited for its row has to ask anew, with a new snapshot
                    lock = select(searches.c.key).where(searches.c.key == key)
                    connection.execute(lock.with_for_update())
                still = select(searches).where(_old_search(connection, age, keep_front))
                row = connection.execute(still.where(searches.c.key == key)).one_or_none()
                if row is None:
                    continue  # somebody was faster, or wants it
                these = files.c.search_key == key

                def goes(search: int, _: int, key: int = key) -> bool:
                    return search == key or search in going

                size = _said(connection, key) + _freed(connection, these, goes, counted)
                removed = Removed(row.id, row.display_name, None, row.updated, size)
                if not dry_run:
                    delete_search(connection, row, clock(connection))
            yield removed

    def artifacts(
        self, days: float, *, keep_front: bool = False, dry_run: bool = False
    ) -> Iterator[Removed]:
        """Removes artefacts of searches that have ended, that were made, or failed, so many days
        ago; whoever wants one again asks for it again. With `keep_front` not those of trials on
        the front of their search."""
        age, a = timedelta(days=days), artifacts.c
        with self._database.read() as connection:
            old = select(a.search_key, a.number).where(_old_artifact(connection, age, keep_front))
            places = [
                tuple(row) for row in connection.execute(old.order_by(a.search_key, a.number))
            ]
        going, counted = set(places) if dry_run else set(), set[str]()
        for key, number in places:
            this = and_(a.search_key == key, a.number == number)
            with self._a_moment(dry_run) as connection:
                still = select(searches.c.id, searches.c.display_name, a.updated).join_from(
                    artifacts, searches, searches.c.key == a.search_key
                )
                of_this = still.where(this, _old_artifact(connection, age, keep_front))
                row = connection.execute(of_this.with_for_update()).one_or_none()
                if row is None:
                    continue
                these = and_(files.c.search_key == key, files.c.number == number)

                def goes(*at: int, place: tuple[int, int] = (key, number)) -> bool:
                    return at == place or at in going

                size = _freed(connection, these, goes, counted)
                removed = Removed(row.id, row.display_name, number, row.updated, size)
                if not dry_run:
                    delete_artifacts(connection, key, number)
            yield removed

    def give_back(self) -> tuple[int, int]:
        """What is free in a SQLite file goes back to the disk, a few pages at a time: how many
        bytes went, and how many stay free in it for what comes."""
        before, can = self._database.give_back(0)
        left = before
        while can and left:
            started = time.monotonic()
            now, can = self._database.give_back(PAGES)
            if now >= left:  # others free as much
                break
            left = now
            time.sleep(time.monotonic() - started)
        return before - left, left

    @contextmanager
    def _a_moment(self, dry_run: bool) -> Iterator[Connection]:
        """A transaction, and then a pause for others that is as long."""
        started = time.monotonic()
        with self._database.read() if dry_run else self._database.write() as connection:
            yield connection
        if not dry_run:
            time.sleep(time.monotonic() - started)


def _old_search(connection: Connection, age: timedelta, keep_front: bool) -> ColumnElement[bool]:
    s, a, before = searches.c, artifacts.c, clock(connection) - age
    young = (a.updated >= before) | a.state.not_in(_MADE)
    wanted = exists().where(a.search_key == s.key, young)
    old = and_(s.state.in_(_ENDED), s.updated < before, ~wanted, *visible(connection))
    if keep_front:
        ready = a.state == ArtifactState.READY.value
        old &= ~exists().where(a.search_key == s.key, ready, _on_front())
    return old


def _old_artifact(connection: Connection, age: timedelta, keep_front: bool) -> ColumnElement[bool]:
    a, before = artifacts.c, clock(connection) - age
    those = select(searches.c.key).where(searches.c.state.in_(_ENDED), *visible(connection))
    ended = a.search_key.in_(those.correlate(None))
    old = and_(a.state.in_(_MADE), a.updated < before, ended)
    return old & ~_on_front() if keep_front else old


def _on_front() -> ColumnElement[bool]:
    """Whether the trial of an artefact is on the front of its search, on any machine."""
    f, a = front.c, artifacts.c
    return select(f.number).where(f.search_key == a.search_key, f.number == a.number).exists()


def _said(connection: Connection, key: int) -> int:
    """Characters of what is told of a search."""
    t, length = trials.c, func.length
    of_trials = select(func.sum(length(t.details) + length(t.params) + length(t.error)))
    of_events = select(func.sum(length(events.c.payload)))
    parts = of_trials.where(t.search_key == key), of_events.where(events.c.search_key == key)
    return sum(int(connection.execute(part).scalar() or 0) for part in parts)


def _freed(
    connection: Connection, these: ColumnElement[bool], gone: Gone, counted: set[str]
) -> int:
    """Bytes of content that only these files have, and others that go too, unless it was `counted`
    with those."""
    f = files.c
    rows = connection.execute(select(f.sha256, f.size).where(these))
    sizes = {row.sha256: row.size for row in rows if row.sha256 not in counted}
    digests = list(sizes)
    for at in range(0, len(digests), IN_ONE):
        having = select(f.sha256, f.search_key, f.number).where(
            f.sha256.in_(digests[at : at + IN_ONE])
        )
        for row in connection.execute(having):
            if not gone(row.search_key, row.number):
                sizes[row.sha256] = 0
    counted.update(sha256 for sha256, size in sizes.items() if size)
    return sum(sizes.values())
