"""`Tokens`: who may call, and the sessions of those who look at the page. One method is one
transaction.

No secret is kept: only hashes of what was random. It must not know how a token comes here.
Next: `../access.py`, what a token is; `../gate.py`, who asks.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from ..access import (
    NO_HASH,
    SECRET_BYTES,
    Caller,
    Scope,
    TokenRecord,
    hash_of,
    is_hash_of,
    is_owner,
    new_token,
    read_token,
)
from ..errors import InvalidRequest, NotFound, Unauthenticated
from .engine import Database, clock
from .queries import readable
from .schema import sessions, tokens

NOT_VALID = "the token is not valid"
SESSIONS = 100  # of one token


class Tokens:
    """A part of the store, `Store.access`. Raises DatabaseError where the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, owner: str, scope: Scope, expires: datetime | None = None
    ) -> tuple[str, TokenRecord]:
        """A new token's text, which nobody can read again, and its record. Raises
        InvalidRequest."""
        if not is_owner(owner):
            said = "wanted 1 to 63 of a-z, 0-9 and . _ @ -, the first one a letter or a number"
            raise InvalidRequest(f"owner: {said}; got {owner[:70]!r}", "owner")
        text, id, hash = new_token()
        with self._database.write() as connection:
            now = clock(connection)
            row = {"id": id, "owner": owner, "scope": int(scope), "hash": hash, "created": now}
            connection.execute(insert(tokens).values(row | {"expires": expires, "revoked": None}))
        return text, TokenRecord(id, owner, scope, now, expires, None)

    def list(self) -> list[TokenRecord]:
        """All there ever were, the oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(tokens).order_by(tokens.c.created, tokens.c.id))
            return [_record(row) for row in rows]

    def revoke(self, id: str) -> TokenRecord:
        """From now on the token is good for nothing, nor are its sessions. Raises NotFound."""
        with self._database.write() as connection:
            row = _row(connection, id)
            if row is None:
                raise NotFound(f"there is no token {id[:20]!r}")
            if row.revoked is None:
                now = clock(connection)
                connection.execute(update(tokens).where(tokens.c.id == id).values(revoked=now))
            connection.execute(delete(sessions).where(sessions.c.token == id))
            return _record(_row(connection, id))

    def caller_of(self, text: str) -> Caller:
        """Raises Unauthenticated. What was wrong is told only to who knows the secret."""
        given = read_token(text)
        if given is None:
            raise Unauthenticated(NOT_VALID)
        id, secret = given
        with self._database.read() as connection:
            row = _row(connection, id)
            known = is_hash_of(secret, NO_HASH if row is None else row.hash)
            if row is None or not known:
                raise Unauthenticated(NOT_VALID)
            return _caller(row, clock(connection))

    def caller_by_id(self, id: str) -> Caller:
        """Of a token that was good before, whether it still is. Raises Unauthenticated."""
        with self._database.read() as connection:
            row = _row(connection, id)
            if row is None:
                raise Unauthenticated(NOT_VALID)
            return _caller(row, clock(connection))

    def unless(self, gone: Callable[[], bool]) -> AbstractContextManager[None]:
        """As `Database.unless`."""
        return self._database.unless(gone)

    # sessions of the page

    def open_session(self, caller: Caller, seconds: float) -> str:
        """The secret of a session, for who has shown this caller's token; of many sessions of one
        token the oldest end."""
        secret = secrets.token_urlsafe(SECRET_BYTES)
        with self._database.write() as connection:
            now = clock(connection)
            connection.execute(delete(sessions).where(sessions.c.expires <= now))
            mine = sessions.c.token == caller.token
            newest = select(sessions.c.hash).where(mine).order_by(sessions.c.expires.desc())
            newest = newest.limit(SESSIONS - 1)
            connection.execute(delete(sessions).where(mine, sessions.c.hash.not_in(newest)))
            row = {"hash": hash_of(secret), "token": caller.token}
            ends = now + timedelta(seconds=seconds)
            connection.execute(insert(sessions).values(row | {"expires": ends}))
        return secret

    def caller_of_session(self, secret: str) -> Caller:
        """Raises Unauthenticated."""
        joined = select(tokens, sessions.c.expires.label("ends")).select_from(
            sessions.join(tokens, tokens.c.id == sessions.c.token)
        )
        with self._database.read() as connection:
            # looked up by its hash: how far a comparison came tells nothing about the secret
            row = connection.execute(joined.where(sessions.c.hash == hash_of(secret))).one_or_none()
            now = clock(connection)
            if row is None or row.ends <= now:
                raise Unauthenticated("the session is over; log in again")
            return _caller(row, now)

    def close_session(self, secret: str) -> None:
        """It is no error if there is none."""
        with self._database.write() as connection:
            connection.execute(delete(sessions).where(sessions.c.hash == hash_of(secret)))


def _row(connection: Connection, id: str) -> Row[Any] | None:
    return connection.execute(select(tokens).where(tokens.c.id == id)).one_or_none()


def _record(row: Any) -> TokenRecord:
    made = lambda: TokenRecord(  # noqa: E731
        row.id, row.owner, Scope(row.scope), row.created, row.expires, row.revoked
    )
    return readable(f"token {row.id}", made)


def _caller(row: Row[Any], now: datetime) -> Caller:
    """Raises Unauthenticated."""
    record = _record(row)
    state = record.state(now)
    if state == "revoked":
        raise Unauthenticated(f"the token {record.id} was revoked")
    if state == "expired":
        at = record.expires.astimezone(UTC).strftime("%Y-%m-%d %H:%M") if record.expires else ""
        raise Unauthenticated(f"the token {record.id} has expired, on {at} UTC")
    return Caller(record.owner, record.scope, record.id)
