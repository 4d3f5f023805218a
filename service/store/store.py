"""`Store`: searches, trials, events and claims, durably. One method is one transaction.

Thread safe, and several processes may open the same database. Who runs a search holds a `Claim`;
whoever claims it after that fences the older claim off. It must not know grpc.
Next: `queries.py`, `writes.py`, `trial_log.py`.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from uuid import uuid4

from sqlalchemy import and_, or_, select, update

from ...errors import one_line
from ...search import ArchSpec, SearchSpec, TrialState
from ..errors import AlreadyExists, InternalError, NotAllowed, NotFound, SetupError
from ..records import SEARCH_TRANSITIONS, Claim, Event, Page, SearchRecord, SearchState, TrialRecord
from . import migrate, queries, writes
from .engine import BUSY_S, Database, clock, insert_if_new, read_url
from .paging import check_size, make_token, read_token
from .schema import architectures, searches, trials
from .trial_log import StoreLog


def open_store(url_or_path: str, busy_s: float = BUSY_S) -> Store:
    """The store in a SQLite file, given by its path or as `sqlite:///PATH`, or in a PostgreSQL
    database. A new one is made, an older one brought up to date. `busy_s` is how long it waits for
    another process that is writing. Raises SetupError."""
    database = Database(read_url(url_or_path), busy_s)
    try:
        migrate.upgrade(database)
    except InternalError as error:
        database.close()
        raise SetupError(f"{one_line(str(error))}; name another --database") from error
    except BaseException:
        database.close()
        raise
    return Store(database)


class Store:
    """Made by `open_store`. Raises InternalError where the database itself fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def close(self) -> None:
        self._database.close()

    # searches

    def create_search(
        self, spec: SearchSpec, request_id: str, display_name: str = ""
    ) -> SearchRecord:
        """A new search, QUEUED; for a request id that was used before, the search it made. Raises
        AlreadyExists if that was another one."""
        with self._database.write() as connection:
            now = clock(connection)
            id, request = uuid4().hex, request_id or uuid4().hex
            row = {
                "id": id,
                "request_id": request,
                "display_name": display_name,
                "spec": spec.to_json(),
                "space": spec.space,
                "task": spec.task,
                "state": SearchState.QUEUED.value,
                "error": "",
                "owner": "",
                "epoch": 0,
                "last_sequence": 0,
                "created": now,
                "updated": now,
            }
            insert_if_new(connection, searches, "request_id", row)
            same_request = select(searches).where(searches.c.request_id == request)
            made = connection.execute(same_request).one()
            if made.id == id:
                writes.set_state(connection, made.key, now, SearchState.QUEUED)
            elif (made.spec, made.display_name) != (row["spec"], display_name):
                raise AlreadyExists(f"request {request_id!r} has made another search, {made.id}")
            return queries.search_record(connection, made.id)

    def get_search(self, id: str) -> SearchRecord:
        """Raises NotFound."""
        with self._database.read() as connection:
            return queries.search_record(connection, id)

    def progress(self, id: str) -> tuple[int, SearchState]:
        """The number of the newest event, and the state since then: what a watcher asks for again
        and again. Raises NotFound."""
        with self._database.read() as connection:
            row = queries.search_row(connection, id)
        return row.last_sequence, queries.readable(f"search {id}", lambda: SearchState(row.state))

    def list_searches(self, page_size: int, page_token: str = "") -> Page[SearchRecord]:
        """Newest first. Raises InvalidRequest."""
        size, before = check_size(page_size), read_token(page_token, "searches")
        if before == 0:
            return Page()
        with self._database.read() as connection:
            rows = queries.newest_searches(connection, before or 0, size + 1)
            records = tuple(queries.search_records(connection, rows[:size]))
        return Page(records, make_token(rows[size - 1].key, "searches") if rows[size:] else "")

    def cancel_search(self, id: str) -> SearchRecord:
        """Ends a search, and prunes what was open; one that was cancelled already stays as it is.
        Raises NotFound, or NotAllowed if it has ended otherwise."""
        with self._database.write() as connection:
            row = queries.search_row(connection, id, lock=True)
            state = queries.readable(f"search {id}", lambda: SearchState(row.state))
            if state is not SearchState.CANCELLED:
                if SearchState.CANCELLED not in SEARCH_TRANSITIONS[state]:
                    raise NotAllowed(f"the search {id} is {state} and cannot be cancelled")
                writes.set_state(connection, row.key, clock(connection), SearchState.CANCELLED)
            return queries.search_record(connection, id)

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
    ) -> Page[TrialRecord]:
        """By number; of all states if none is named. Raises NotFound, InvalidRequest."""
        scope = ("trials", search_id, sorted(set(map(str, states))))
        size, after = check_size(page_size), read_token(page_token, scope)
        with self._database.read() as connection:
            conditions = [trials.c.search_key == queries.search_row(connection, search_id).key]
            if states:
                conditions.append(trials.c.state.in_([state.value for state in states]))
            if after is not None:
                conditions.append(trials.c.number > after)
            found = queries.trial_records(connection, conditions, size + 1)
        more = len(found) > size
        return Page(tuple(found[:size]), make_token(found[size - 1].number, scope) if more else "")

    def get_trial(self, search_id: str, number: int) -> TrialRecord:
        """Raises NotFound."""
        with self._database.read() as connection:
            key = queries.search_row(connection, search_id).key
            conditions = [trials.c.search_key == key, trials.c.number == number]
            found = queries.trial_records(connection, conditions)
        if not found:
            raise NotFound(f"the search {search_id} has no trial {number}")
        return found[0]

    def succeeded(
        self, search_ids: Collection[str] = (), space: str = "", task: str = ""
    ) -> list[TrialRecord]:
        """Every trial that succeeded, by search and number: in these searches, or in all if none is
        named, of this space and this task where one is. Raises NotFound for a search."""
        conditions = [trials.c.state == TrialState.SUCCEEDED.value]
        if space:
            conditions.append(searches.c.space == space)
        if task:
            conditions.append(searches.c.task == task)
        with self._database.read() as connection:
            if search_ids:
                keys = queries.keys_of(connection, search_ids)
                conditions.append(trials.c.search_key.in_(keys))
            return queries.trial_records(connection, conditions)

    def get_architecture(self, fingerprint: str) -> ArchSpec:
        """Raises NotFound."""
        a = architectures.c
        with self._database.read() as connection:
            known = select(a.spec).where(a.fingerprint == fingerprint)
            text = connection.execute(known).scalar_one_or_none()
        if text is None:
            raise NotFound(f"there is no architecture {fingerprint!r}")
        return queries.architecture(text)

    # claims: who may run a search

    def claim(self, owner: str, lease_s: float) -> Claim | None:
        """The oldest search that waits, or whose runner let its lease end; None if there is none,
        or if it cannot be read and so has failed. Until the lease ends nobody else gets it."""
        s = searches.c
        with self._database.write() as connection:
            now = clock(connection)
            left = or_(s.lease_expires.is_(None), s.lease_expires <= now)
            orphaned = and_(s.state == SearchState.RUNNING.value, left)
            waiting = or_(s.state == SearchState.QUEUED.value, orphaned)
            oldest = select(searches).where(waiting).order_by(s.key).limit(1)
            row = connection.execute(oldest.with_for_update(skip_locked=True)).one_or_none()
            if row is None:
                return None
            expires = now + timedelta(seconds=lease_s)
            new = {"owner": owner, "epoch": row.epoch + 1, "lease_expires": expires}
            connection.execute(update(searches).where(s.key == row.key).values(new))
            if row.state != SearchState.RUNNING:
                writes.set_state(connection, row.key, now, SearchState.RUNNING)
            try:
                return Claim(queries.search_record(connection, row.id), owner, row.epoch + 1)
            except InternalError as error:  # nobody can run it; it must not keep others waiting
                writes.set_state(connection, row.key, now, SearchState.FAILED, str(error))
                return None

    def renew(self, claim: Claim, lease_s: float) -> bool:
        """Whether the claim still holds; its lease then ends in `lease_s` seconds."""
        s = searches.c
        with self._database.write() as connection:
            current = and_(
                s.id == claim.search.id,
                s.owner == claim.owner,
                s.epoch == claim.epoch,
                s.state == SearchState.RUNNING.value,
            )
            expires = clock(connection) + timedelta(seconds=lease_s)
            renewed = update(searches).where(current).values(lease_expires=expires)
            return connection.execute(renewed).rowcount == 1

    def release(self, owner: str) -> int:
        """Ends all leases of this owner and says how many; the searches can be claimed at once."""
        s = searches.c
        with self._database.write() as connection:
            held = and_(s.owner == owner, s.state == SearchState.RUNNING.value)
            ended = update(searches).where(held).values(owner="", lease_expires=None)
            return connection.execute(ended).rowcount

    def finish(self, claim: Claim, state: SearchState, error: str = "") -> None:
        """The claimed search goes to `state`; in a final one, what was open is pruned. Raises
        Fenced if the claim does not hold or the search cannot go there."""
        with self._database.write() as connection:
            writes.finish(connection, claim, state, error)

    def log(self, claim: Claim) -> StoreLog:
        """The log of the claimed search."""
        return StoreLog(self._database, claim)
