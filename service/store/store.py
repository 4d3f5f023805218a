"""`Store`: searches, trials, events and claims, durably. One method is one transaction.

Thread safe, and several processes may open the same database. Who runs a search holds a `Claim`;
whoever claims it after that fences the older claim off. It must not know grpc.
Next: `queries.py`, `writes.py`, `trial_log.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, select

from ...errors import one_line
from ...search import ArchSpec, Metric, SearchSpec, TrialState
from ..errors import InternalError, NotAllowed, NotFound, SetupError, Stale
from ..records import (
    ACTIONS,
    Action,
    Claim,
    Event,
    Page,
    SearchRecord,
    SearchState,
    TrialRecord,
)
from . import claims, migrate, queries, writes
from .artifacts import Artifacts
from .creation import create
from .ended import At, Ended
from .engine import BUSY_S, Database, clock, read_url, sees
from .kept import Columns
from .listing import SEARCHES, TRIALS, Listing
from .measured import Bound, Place, Scope, Table, kept_front, measured
from .paging import check_size
from .requests import OWNS, digest, forget_requests, is_first
from .retention import Retention
from .schema import architectures, searches, trials
from .tokens import Tokens
from .totals import Totals, totals
from .trial_log import StoreLog

SHOWN = 100  # trials of an architecture
KEPT_DAYS = 30  # for which ids of requests are known
Progress = queries.Progress


def open_store(url_or_path: str, busy_s: float = BUSY_S) -> Store:
    """The store in a SQLite file, given by its path or as `sqlite:///PATH`, or in a PostgreSQL
    database. A new one is made, an older one brought up to date. `busy_s` is how long it waits for
    another process that is writing. Raises SetupError."""
    database = Database(read_url(url_or_path), busy_s)
    try:
        database.make_file()
        migrate.upgrade(database)
    except InternalError as error:
        database.close()
        raise SetupError(f"{one_line(str(error))}; name another database") from error
    except BaseException:
        database.close()
        raise
    return Store(database)


class Store:
    """Made by `open_store`. Raises InternalError where the database itself fails."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.artifacts = Artifacts(database)
        self.retention = Retention(database)
        self.access = Tokens(database)
        self._columns, self._ended = Columns(), Ended()
        self._views: dict[str, Store] = {}
        self._owner = ""  # of searches that are made here

    def close(self) -> None:
        self._database.close()

    def seen_by(self, owner: str | None, makes: str = "") -> Store:
        """This store for somebody who sees only what belongs to `owner` (None: everything), and
        whose own searches belong to that owner, or to `makes`. To everything else it is as if it
        were not there."""
        if owner is None and not makes:
            return self
        key = repr((owner, makes))
        if key not in self._views:
            view = copy.copy(self)
            view._owner = makes or owner or ""
            if owner is not None:
                view._database = self._database.seen_by(owner)
                view.artifacts = Artifacts(view._database)
                view.retention = Retention(view._database)
            self._views[key] = view
        return self._views[key]

    @property
    def sees_all(self) -> bool:
        """Whether this is nobody's view, or that of somebody who sees everything."""
        return not self._database.is_view

    def request(self, id: str) -> str:
        """What the store calls a request: the same id of another owner is another request."""
        if not (id and self._owner):
            return id
        named = f"{self._owner}{OWNS}{id}"
        return named if len(named) <= 100 else f"{self._owner}{OWNS}{digest(id)[:32]}"

    def version(self) -> int | None:
        """See `Database.version`."""
        return self._database.version()

    def unless(self, gone: Callable[[], bool]) -> AbstractContextManager[None]:
        """See `Database.unless`."""
        return self._database.unless(gone)

    def ping(self) -> None:
        """Raises InternalError if the database does not answer."""
        with self._database.read() as connection:
            connection.execute(select(1))

    def totals(self) -> Totals:
        """What there is, in numbers."""
        return totals(self._database)

    # searches

    def create_search(
        self, spec: SearchSpec, request_id: str, display_name: str = "", priority: int = 0
    ) -> SearchRecord:
        """A new search, QUEUED; for a request id that was used before, the search it made. Raises
        AlreadyExists if that was another one."""
        with self._database.write() as connection:
            id = create(connection, spec, request_id, display_name, priority, self._owner)
            return queries.search_record(connection, id)

    def forget_requests(self, days: float = KEPT_DAYS) -> int:
        """Ids of requests that had their effect so many days ago mean nothing any more; how many
        there were. Those that made a search that is there are known as long as it is."""
        with self._database.write() as connection:
            return forget_requests(connection, clock(connection) - timedelta(days=days))

    def get_search(self, id: str) -> SearchRecord:
        """Raises NotFound."""
        with self._database.read() as connection:
            return queries.search_record(connection, id)

    def progress_of(self, ids: Sequence[str]) -> dict[str, Progress]:
        """Of those that are there: the number of the newest event, and the state since then, or why
        they cannot be read. What a watcher asks for again and again."""
        with self._database.read() as connection:
            return queries.progress_of(connection, ids)

    def list_searches(
        self, page_size: int, page_token: str = "", filter: str = "", order_by: str = ""
    ) -> Page[SearchRecord]:
        """Newest first, if `order_by` says nothing else. Raises InvalidRequest."""
        listing = Listing.of(SEARCHES, filter, order_by)
        with self._database.read() as connection:
            mine = queries.visible(connection)
            rows, token = listing.page(connection, mine, check_size(page_size), page_token)
        return Page(tuple(queries.search_records(rows)), token)

    def act(self, id: str, action: Action, request_id: str = "") -> SearchRecord:
        """The search after `action`, by the table `ACTIONS`; once it is CANCELLED what was open is
        pruned. A request that was sent before changes nothing. Raises NotFound, NotAllowed if it is
        in a state that refuses, AlreadyExists."""
        with self._database.write() as connection:
            now = clock(connection)
            if not is_first(connection, request_id, action.name, (), id, now):
                return self._seen_before(connection, id, action)
            row = queries.search_row(connection, id, lock=True)
            record = queries.search_of(row)
            after = allowed(record, action)
            if after is record.state:
                return record
            writes.set_state(connection, row.key, now, after)
            return queries.search_record(connection, id)

    def delete_search(self, id: str, request_id: str = "") -> None:
        """With its trials and events. Raises NotFound, NotAllowed, AlreadyExists."""
        with self._database.write() as connection:
            now = clock(connection)
            if is_first(connection, request_id, Action.DELETE.name, (), id, now):
                row = queries.search_row(connection, id, lock=True)
                allowed(queries.search_of(row), Action.DELETE)
                writes.delete_search(connection, row, now)

    def update_search(
        self,
        id: str,
        changes: Mapping[str, Any],
        *,
        revision: int = 0,
        request_id: str = "",
    ) -> SearchRecord:
        """With `changes` of `display_name`, `priority` and what its spec may spend (`BUDGETS`).
        Raises NotFound, NotAllowed, AlreadyExists; SpecError for a value that cannot be; Stale if
        it is not at this `revision` (0: any)."""
        with self._database.write() as connection:
            now = clock(connection)
            asked = (sorted(changes.items()), revision)
            if not is_first(connection, request_id, Action.UPDATE.name, asked, id, now):
                return self._seen_before(connection, id, Action.UPDATE)
            row = queries.search_row(connection, id, lock=True)
            record = queries.search_of(row)
            if revision not in (0, record.revision):
                raise Stale(f"the search {id} is at revision {record.revision}, not {revision}")
            allowed(record, Action.RENAME if set(changes) <= {"display_name"} else Action.UPDATE)
            writes.update_search(connection, record, row.key, now, changes)
            return queries.search_record(connection, id)

    @staticmethod
    def _seen_before(connection: Connection, id: str, action: Action) -> SearchRecord:
        """What a request that is sent again sees: the search as it is now."""
        try:
            return queries.search_record(connection, id)
        except NotFound:
            raise NotFound(f"the search {id} was {action.value}, and is deleted now") from None

    def events(self, id: str, after: int, limit: int) -> list[Event]:
        """What changed after event number `after` (0: from the beginning), in order; the details of
        trials are left out. Raises NotFound."""
        with self._database.read() as connection:
            row = queries.search_row(connection, id)
            return queries.event_records(connection, row, after, limit)

    # trials

    def list_trials(
        self,
        search_id: str,
        page_size: int,
        page_token: str = "",
        states: Collection[TrialState] = (),
        *,
        filter: str = "",
        order_by: str = "",
    ) -> Page[TrialRecord]:
        """By number, if `order_by` says nothing else; of all states if none is named. Raises
        NotFound, InvalidRequest."""
        wanted = sorted({state.value for state in states})
        listing = Listing.of(TRIALS, filter, order_by, search_id, *wanted)
        with self._database.read() as connection:
            also = [trials.c.search_key == queries.search_row(connection, search_id).key]
            if wanted:
                also.append(trials.c.state.in_(wanted))
            rows, token = listing.page(connection, also, check_size(page_size), page_token)
            places = [At(row.search_id, row.search_key, row.number) for row in rows]
            return Page(tuple(self._ended.records(connection, places)), token)

    def get_trial(self, search_id: str, number: int) -> TrialRecord:
        """Raises NotFound."""
        with self._database.read() as connection:
            key = queries.key_of_trial(connection, search_id, number)
            found = self._ended.records(connection, [At(search_id, key, number)])
        if not found:
            raise InternalError(f"the record of trial {search_id}/{number} cannot be read")
        return found[0]

    def measured(
        self, scope: Scope, metrics: Sequence[Metric], bounds: Sequence[Bound] = ()
    ) -> Table:
        """The numbers of all trials that succeeded and have them, within bounds. Raises
        NotFound."""
        with self._database.read() as connection:
            return measured(connection, self._columns, scope, metrics, bounds)

    def kept_front(self, search_id: str) -> tuple[list[Place], int]:
        """The front of a search by its own objectives, the best of the first one first, and of how
        many trials. Raises NotFound, or NotAllowed if there is one for each of several machines."""
        with self._database.read() as connection:
            row = queries.search_row(connection, search_id)
            return kept_front(connection, row, queries.search_of(row).spec)

    def trials_at(self, places: Sequence[Place]) -> list[TrialRecord]:
        """In that order; those that are there no longer may be left out."""
        with self._database.read() as connection:
            at = [At(place.search_id, place.search_key, place.number) for place in places]
            return self._ended.records(connection, at)

    def get_architecture(self, fingerprint: str) -> tuple[ArchSpec, list[tuple[str, int]]]:
        """And the trials that have had it, the newest first: search and number. Raises
        NotFound."""
        a, t, s = architectures.c, trials.c, searches.c
        with self._database.read() as connection:
            had = select(s.id, t.number).select_from(trials.join(searches))
            had = had.where(t.fingerprint == fingerprint, *queries.visible(connection))
            known = select(a.spec).where(a.fingerprint == fingerprint)
            if sees(connection) is not None:  # one that others only have tried is not there
                known = known.where(had.exists())
            text = connection.execute(known).scalar_one_or_none()
            if text is None:
                raise NotFound(f"there is no architecture {fingerprint!r}")
            newest = had.order_by(t.search_key.desc(), t.number.desc())
            where = [(row.id, row.number) for row in connection.execute(newest.limit(SHOWN))]
        return queries.architecture(text), where

    # claims: who may run a search

    def claim(self, owner: str, lease_s: float) -> Claim | None:
        """Of the searches that wait, or whose runner let its lease end, the one of the highest
        priority, the oldest of these; None if there is none, or if it cannot be read and so has
        failed. Until the lease ends nobody else gets it."""
        with self._database.write() as connection:
            return claims.claim(connection, owner, lease_s)

    def renew(self, claim: Claim, lease_s: float) -> bool:
        """Whether the claim still holds; its lease then ends in `lease_s` seconds."""
        with self._database.write() as connection:
            return claims.renew(connection, claim, lease_s)

    def release(self, owner: str) -> int:
        """Ends all leases of this owner and says how many; the searches can be claimed at once."""
        with self._database.write() as connection:
            return claims.release(connection, owner)

    def finish(
        self,
        claim: Claim,
        state: SearchState,
        error: str = "",
        driven: SearchSpec | None = None,
    ) -> bool:
        """The claimed search goes to `state`; in a final one, what was open is pruned. False, and
        no change, if it is not by the spec `driven` any more that it came so far. Raises Fenced if
        the claim does not hold or the search cannot go there."""
        with self._database.write() as connection:
            return claims.finish(connection, claim, state, error, driven)

    def log(self, claim: Claim) -> StoreLog:
        """The log of the claimed search."""
        return StoreLog(self._database, claim)


def allowed(record: SearchRecord, action: Action) -> SearchState:
    """The state after the action. Raises NotAllowed."""
    after = ACTIONS[action].get(record.state)
    if after is None:
        may = ", ".join(ACTIONS[action])
        raise NotAllowed(
            f"the search {record.id} is {record.state} and cannot be {action.value}; that one can"
            f" be which is {may}"
        )
    return after
