"""How a search is made: once for a request, however often that is sent.

A part of the caller's transaction. Next: `requests.py`, the other requests.
"""

from __future__ import annotations

from uuid import uuid4

from sqlalchemy import Connection, select

from ...search import SearchSpec
from ..errors import AlreadyExists, NotFound
from ..records import SearchState
from .engine import clock, insert_if_new
from .requests import digest, refuse_used, shown
from .schema import searches
from .writes import set_state


def create(
    connection: Connection,
    spec: SearchSpec,
    request_id: str,
    display_name: str,
    priority: int,
    belongs_to: str,
) -> str:
    """The id of the search. See `Store.create_search`."""
    now = clock(connection)
    id, request = uuid4().hex, request_id or uuid4().hex
    row = {
        "id": id,
        "request_id": request,
        "asked": digest((spec.to_json(), display_name, priority)),
        "display_name": display_name,
        "priority": priority,
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
        "belongs_to": belongs_to,
    }
    insert_if_new(connection, searches, "request_id", row)
    if request_id:  # only now: its search may have been deleted while this one waited
        refuse_used(connection, request_id)
    same_request = select(searches).where(searches.c.request_id == request)
    made = connection.execute(same_request).one_or_none()
    if made is None:
        raise NotFound(f"request {shown(request_id)} has made a search, which was deleted")
    if made.id == id:
        set_state(connection, made.key, now, SearchState.QUEUED)
    elif made.asked != row["asked"]:
        raise AlreadyExists(f"request {shown(request_id)} has made another search, {made.id}")
    found: str = made.id
    return found
