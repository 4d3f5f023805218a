"""Claims: who may run a search. Each function is a part of the caller's transaction.

Next: `store.py`; `trial_log.py`, which writes only under a claim.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, select, update

from ...errors import one_line
from ...search import Fenced, SearchSpec
from ..errors import InternalError, NotFound
from ..records import SEARCH_TRANSITIONS, Claim, SearchState
from .artifacts import let_go
from .engine import clock
from .leased import claimable, released
from .queries import search_record, search_row
from .schema import searches
from .writes import set_state


def claim(connection: Connection, owner: str, lease_s: float) -> Claim | None:
    """See `Store.claim`."""
    s = searches.c
    now = clock(connection)
    waiting = select(searches).where(claimable(searches, now))
    oldest = waiting.order_by(s.priority.desc(), s.key).limit(1)
    row = connection.execute(oldest.with_for_update(skip_locked=True)).one_or_none()
    if row is None:
        return None
    expires = now + timedelta(seconds=lease_s)
    new = {"owner": owner, "epoch": row.epoch + 1, "lease_expires": expires}
    connection.execute(update(searches).where(s.key == row.key).values(new))
    if row.state != SearchState.RUNNING:
        set_state(connection, row.key, now, SearchState.RUNNING)
    try:
        return Claim(search_record(connection, row.id), owner, row.epoch + 1)
    except InternalError as error:  # nobody can run it; it must not keep others waiting
        set_state(connection, row.key, now, SearchState.FAILED, str(error))
        return None


def renew(connection: Connection, held: Claim, lease_s: float) -> bool:
    """See `Store.renew`."""
    s = searches.c
    current = and_(
        s.id == held.search.id,
        s.owner == held.owner,
        s.epoch == held.epoch,
        s.state == SearchState.RUNNING.value,
    )
    expires = clock(connection) + timedelta(seconds=lease_s)
    renewed = update(searches).where(current).values(lease_expires=expires)
    return connection.execute(renewed).rowcount == 1


def release(connection: Connection, owner: str) -> int:
    """See `Store.release`."""
    let_go(connection, owner)
    return connection.execute(released(searches, owner)).rowcount


def finish(
    connection: Connection,
    held: Claim,
    state: SearchState,
    error: str,
    driven: SearchSpec | None,
) -> bool:
    """See `Store.finish`."""
    row = claimed_row(connection, held)
    if driven is not None and row.spec != driven.to_json():
        return False
    if state not in SEARCH_TRANSITIONS[SearchState(row.state)]:
        raise Fenced(f"the search {row.id} is {row.state}; {state} cannot follow")
    set_state(connection, row.key, clock(connection), state, one_line(error))
    return True


def claimed_row(connection: Connection, held: Claim) -> Row[Any]:
    """The locked row of the search that was claimed. Raises Fenced if the claim is out of date."""
    try:
        row = search_row(connection, held.search.id, lock=True)
    except NotFound as error:
        raise Fenced(f"the search {held.search.id} is not there") from error
    if not is_current(row, held):
        now = f"is {row.state}, claimed {row.epoch} times, now by {row.owner or 'nobody'}"
        raise Fenced(f"the search {row.id} {now}; not by {held.owner} in claim {held.epoch}")
    return row


def is_current(row: Row[Any], held: Claim) -> bool:
    """Whether this claim is the one that may write."""
    running: bool = row.state == SearchState.RUNNING
    return running and (row.owner, row.epoch) == (held.owner, held.epoch)
