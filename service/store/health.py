"""How well a database is, and what waits in it, without changing anything: for `formwright doctor`.

Everything here is asked in one short transaction, but for the check of a file's pages, which ends
after a given time. It must not know what is good. Next: `../checks/database.py`, which does.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select, text

from ..records import ArtifactState, SearchState
from .engine import Database, clock
from .examine import BUSY_S, examine, hurried
from .schema import artifacts, searches, tokens

OPCODES = 50_000  # of SQLite between two looks at the time
SOON = timedelta(days=7)


@dataclass(frozen=True)
class SqliteHealth:
    """`broken` is what SQLite says of its pages; empty where all are well, and of those only that
    were looked at in time where not `whole`. `log` is the write-ahead log, in bytes."""

    journal: str
    log: int
    broken: str
    whole: bool


@dataclass(frozen=True)
class PostgresqlHealth:
    """`version` as 150004. `ahead_s` is how far its clock goes before ours, `late_s` how exactly
    that is known: the time that the question took. `left` connections of `most` are free.
    `remote` where it is asked over a network, `encrypted` whether that is by TLS."""

    version: int
    encoding: str
    ahead_s: float
    late_s: float
    left: int
    most: int
    standby: bool
    may_create: bool
    remote: bool
    encrypted: bool
    role: str
    schema: str


@dataclass(frozen=True)
class Waiting:
    """`queued` searches, the oldest since `since_s`, for the reason `why` where they were given
    back; `running` have a lease that holds, `lost` one that has run out, the oldest since
    `lost_s`. `failed` artefacts of the last week, and what the newest says."""

    queued: int = 0
    since_s: float = 0.0
    why: str = ""
    running: int = 0
    lost: int = 0
    lost_s: float = 0.0
    failed: int = 0
    artifact: str = ""
    said: str = field(default="", compare=False)


def sqlite_health(given: str, limit_s: float) -> SqliteHealth:
    """Of a file that is there. Raises DatabaseError where it does not open."""
    url = hurried(given)
    database = Database(url, BUSY_S)
    try:
        with database.read() as connection:
            journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
            broken, whole = _quick_check(connection, limit_s)
        log = Path(f"{url.database}-wal")
        return SqliteHealth(journal, log.stat().st_size if log.exists() else 0, broken, whole)
    finally:
        database.close()


def _quick_check(connection: Connection, limit_s: float) -> tuple[str, bool]:
    """The first thing that is wrong, and whether all was looked at."""
    raw: Any = connection.connection.driver_connection
    until = time.monotonic() + limit_s
    raw.set_progress_handler(lambda: time.monotonic() > until, OPCODES)
    try:
        said = raw.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return "", False
        return str(error), True
    except sqlite3.DatabaseError as error:  # so broken that it cannot be looked at
        return str(error), True
    finally:
        raw.set_progress_handler(None, 0)
    return "" if said == "ok" else str(said), True


_POSTGRESQL = """
SELECT current_setting('server_version_num')::int AS version,
       current_setting('server_encoding') AS encoding,
       current_setting('max_connections')::int
         - current_setting('superuser_reserved_connections')::int AS most,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used,
       pg_is_in_recovery() AS standby,
       coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
       inet_server_addr() IS NOT NULL
         AND NOT inet_server_addr() <<= inet '127.0.0.0/8'
         AND inet_server_addr() <> inet '::1' AS remote,
       coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS encrypted,
       current_user AS role,
       coalesce(current_schema(), '') AS schema
"""


def postgresql_health(given: str, now: Any) -> PostgresqlHealth:
    """`now` tells the time here. Raises DatabaseError where it does not answer."""
    database = Database(hurried(given), BUSY_S)
    try:
        with database.read() as connection:
            row = connection.execute(text(_POSTGRESQL)).one()
            before, started = now(), time.monotonic()
            theirs = clock(connection)
            late = time.monotonic() - started
    finally:
        database.close()
    found = dict(row._mapping)
    left = found["most"] - found.pop("used")
    ahead = (theirs - before).total_seconds() - late / 2
    return PostgresqlHealth(**found, ahead_s=ahead, late_s=late, left=left)


def waiting(given: str) -> Waiting:
    """What waits, and for whom. Of a database of our version."""
    database = Database(hurried(given), BUSY_S)
    try:
        with database.read() as connection:
            now = clock(connection)
            return Waiting(**_searches(connection, now), **_artifacts(connection, now))
    finally:
        database.close()


def _searches(connection: Connection, now: datetime) -> dict[str, Any]:
    s = searches.c
    queued = connection.execute(
        select(s.updated, s.error).where(s.state == SearchState.QUEUED).order_by(s.updated)
    ).all()
    leases = connection.execute(
        select(s.lease_expires).where(s.state == SearchState.RUNNING)
    ).scalars()
    ends = [lease or datetime.min.replace(tzinfo=UTC) for lease in leases]
    lost = [end for end in ends if end <= now]
    working = connection.execute(
        select(func.count())
        .select_from(artifacts)
        .where(artifacts.c.state == ArtifactState.RUNNING, artifacts.c.lease_expires > now)
    ).scalar_one()
    return {
        "queued": len(queued),
        "since_s": (now - queued[0].updated).total_seconds() if queued else 0.0,
        "why": next((row.error for row in queued if row.error), ""),
        "running": len(ends) - len(lost) + int(working),
        "lost": len(lost),
        "lost_s": (now - min(lost)).total_seconds() if lost else 0.0,
    }


def _artifacts(connection: Connection, now: datetime) -> dict[str, Any]:
    a = artifacts.c
    rows = connection.execute(
        select(searches.c.id, a.number, a.error)
        .join_from(artifacts, searches, searches.c.key == a.search_key)
        .where(a.state == ArtifactState.FAILED, a.updated > now - SOON)
        .order_by(a.updated.desc())
    ).all()
    if not rows:
        return {}
    newest = rows[0]
    return {
        "failed": len(rows),
        "artifact": f"{newest.id} --number {newest.number}",
        "said": newest.error,
    }


def token_ends(given: str, id: str) -> datetime | None:
    """When the token of that id expires; None if it never does, or is not here."""
    examined = examine(given)
    if not id or not examined.found or examined.found != examined.newest:
        return None
    database = Database(hurried(given), BUSY_S)
    try:
        with database.read() as connection:
            wanted = select(tokens.c.expires).where(tokens.c.id == id)
            return connection.execute(wanted).scalar_one_or_none()
    finally:
        database.close()
