"""Requests with an id: each has its effect once, however often it is sent.

The id of a request that made a search stands with the search (`SearchRow.request_id`) for as long
as that is there. Functions here are a part of the caller's transaction. It must not know what a
request asks for. Next: `store.py`.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, select

from ..errors import AlreadyExists, NotFound
from .engine import insert_if_new
from .schema import requests, searches

CREATE = "CREATE"
OWNS = "\x1f"  # between an owner and the id of a request: no id that is sent has it


def shown(id: str) -> str:
    """The id as it was sent."""
    return repr(id.rpartition(OWNS)[2])


def digest(asked: object) -> str:
    """Of what a request asks for."""
    return hashlib.sha256(repr(asked).encode()).hexdigest()


def is_first(
    connection: Connection, id: str, method: str, asked: object, search: str, now: datetime
) -> bool:
    """Whether this request has not had its effect before; from now on it has. Without an id it
    never had. Raises AlreadyExists if the id was sent with something else."""
    if not id:
        return True
    made = select(searches.c.id).where(searches.c.request_id == id)
    if connection.execute(made).first() is not None:
        raise _reused(id)
    if record_request(connection, id, method, digest(asked), search, now):
        if connection.execute(made).first() is not None:  # meanwhile
            raise _reused(id)
        return True
    before = _row(connection, id)
    if before is None or (before.method, before.asked, before.result) != (
        method,
        digest(asked),
        search,
    ):
        raise _reused(id)
    return False


def record_request(
    connection: Connection, id: str, method: str, asked: str, search: str, now: datetime
) -> bool:
    """Writes down that the request was; False if it is there already. `asked` is a digest."""
    row = {"id": id, "method": method, "asked": asked, "result": search, "created": now}
    return insert_if_new(connection, requests, "id", row)


def forget_requests(connection: Connection, before: datetime) -> int:
    """Those that had their effect before that; nobody sends them again. How many there were."""
    old = delete(requests).where(requests.c.created < before)
    return connection.execute(old).rowcount


def refuse_used(connection: Connection, id: str) -> None:
    """For a request that is to make a search. Raises NotFound if it has made one that is there no
    longer, AlreadyExists if it asked for something else."""
    before = _row(connection, id)
    if before is None:
        return
    if before.method == CREATE:
        raise NotFound(
            f"request {shown(id)} has made the search {before.result}, which was deleted"
        )
    raise _reused(id)


def _reused(id: str) -> AlreadyExists:
    return AlreadyExists(f"request {shown(id)} was sent before, and asked for something else")


def _row(connection: Connection, id: str) -> Row[Any] | None:
    return connection.execute(select(requests).where(requests.c.id == id)).one_or_none()
