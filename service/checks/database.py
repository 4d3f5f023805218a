"""The database: whether it opens, is of our version, is whole, and what waits in it.

It must not know SQL. Next: `../store/examine.py`, `../store/health.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import FormwrightError, one_line
from ...extras import MissingExtraError, needs
from .finding import Finding, failed, ok, warning, wrong
from .look import Look
from .machine import of_folder

if TYPE_CHECKING:
    from ..store.examine import Examined
    from ..store.health import PostgresqlHealth

CHECK_S = 10.0  # for the pages of a file
LONG_LOG = 256 * 2**20  # bytes of a write-ahead log, which is some 4 MiB where all is well
OLDEST = 130000  # of PostgreSQL: older ones get no corrections any more
CLOCK_S = 1.0
ROOM = 40  # connections: of a server, its scheduler and its keeper
LONG_S = 60.0  # how long a search may wait though nothing runs
MOUNTS = Path("/proc/self/mounts")
# a write-ahead log needs memory that all who write share, and so one host
# fmt: off
ELSEWHERE = frozenset((
    "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs",
    "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs",
))
# fmt: on
PERHAPS = frozenset({"9p", "fuse", "virtiofs"})  # of a virtual machine: the host may write too


def of_database(look: Look) -> Iterator[Finding]:
    """Whether it opens, and what is in it. One that nobody has named need not be there."""
    named = look.named("database")
    try:
        found = _examined(look)
    except MissingExtraError as error:
        said, _, remedy = str(error).partition("; try: ")
        yield wrong("database", named, said, remedy or "pip install 'formwright[service]'")
        return
    except FormwrightError as error:
        yield failed("database", one_line(str(error), 300), _to_open(str(error), look))
        return
    schema = f"{found.where}, schema {found.found}"
    if not found.exists:
        said = f"there is no {found.where}"
        if named:
            yield warning("database", said, f"`formwright serve --database {found.where}` makes it")
        else:
            yield ok("database", f"{said}; `formwright serve` makes it")
    elif not found.found:
        said = f"{found.where} opens and has no searches yet"
        yield warning("database", said, "`formwright serve` makes the tables")
    elif not found.known:
        said = f"{schema} is newer than ours, {found.newest}"
        yield failed("database", said, "pip install --upgrade formwright, or another --database")
    elif found.found != found.newest:
        said = f"{schema} is older than ours, {found.newest}"
        remedy = "keep a copy of it; the next `formwright serve` brings it up to date"
        yield warning("database", said, remedy)
    else:
        yield ok("database", schema)


def _to_open(error: str, look: Look) -> str:
    """What to do about a database that does not open."""
    for word, remedy in (
        ("driver is missing", "pip install 'formwright[postgresql]'"),
        ("password", "~/.pgpass, mode 600: HOST:PORT:DATABASE:USER:PASSWORD"),
        ("does not exist", "createuser and createdb; docs/operations.md has both"),
        ("pg_hba", "a line in pg_hba.conf for this host, user and database"),
        ("not a database", "name another --database, or restore a copy of this one"),
        ("malformed", "restore a copy: `formwright restore`"),
        ("no folder", "mkdir -p that folder, or name another --database"),
        ("permission", "chown or chmod the file and its folder for this user"),
        ("unable to open", "chown or chmod the file and its folder for this user"),
        ("locked", "see who writes: fuser FILE; one server at a time may upgrade it"),
        ("onnect", "start PostgreSQL, or mend host and port in " + look.variable("database")),
        ("timeout", "start PostgreSQL, or mend host and port in " + look.variable("database")),
    ):
        if word in error:
            return remedy
    return f"name another one: {look.variable('database')}"


def of_disk(look: Look) -> Iterator[Finding]:
    """Where the file of the database is, or will be; and that no other host writes there."""
    found = _opened(look)
    if found is None or found.file is None:
        return
    file = found.file
    if file.exists() and not os.access(file, os.W_OK):
        yield failed("disk", f"cannot write {file}", f"chown or chmod {file} for this user")
        return
    other = look.variable("database", "FILE")
    yield of_folder("disk", file.parent, other)
    kind = file_system(file.parent)
    if kind in ELSEWHERE:
        said = f"{file.parent} is of a network ({kind}), where SQLite can lose what was written"
        remedy = f"a folder of this machine, or PostgreSQL: {look.variable('database', 'URL')}"
        yield failed("file system", said, remedy)
    elif kind in PERHAPS:
        said = f"{file.parent} is perhaps of another host ({kind}); SQLite wants one host only"
        yield warning("file system", said, f"a folder of this machine: {other}")
    else:
        yield ok("file system", kind or "not known on this system")


def file_system(folder: Path) -> str:
    """What is mounted where the folder is; empty where nobody says."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    real, best, kind = folder.resolve(), Path(), ""
    for line in lines:
        _, where, what, *_ = (*line.split(" "), "", "", "")
        place = Path(where.replace("\\040", " "))
        if (real == place or place in real.parents) and len(place.parts) >= len(best.parts):
            best, kind = place, what
    return kind


def of_health(look: Look) -> Iterator[Finding]:
    """Whether a file is whole; whether PostgreSQL is as it must be."""
    found = _opened(look)
    if found is None or not found.exists:
        return
    if found.file is None:
        yield from _of_postgresql(look)
    else:
        yield from _of_sqlite(look)


def _of_sqlite(look: Look) -> Iterator[Finding]:
    from ..store.health import sqlite_health

    health = sqlite_health(look.text("database"), CHECK_S)
    if health.broken:
        remedy = "stop the server and restore a copy: `formwright restore`"
        yield failed("integrity", one_line(health.broken, 300), remedy)
    elif not health.whole:
        said = f"nothing wrong in the pages that {CHECK_S:.0f} s were enough for"
        yield ok("integrity", said)
    else:
        yield ok("integrity", "SQLite's quick_check finds nothing")
    size = f"{health.log / 2**20:.0f} MiB"
    if health.log > LONG_LOG:
        said = f"{size}: somebody has been reading for long, or nothing was written back"
        yield warning("write-ahead log", said, "restart the server; it is written back then")
    elif health.journal != "wal":
        said = f"the journal is {health.journal}, so readers wait for writers"
        yield warning("write-ahead log", said, "the next `formwright serve` changes it")
    else:
        yield ok("write-ahead log", size)


def _of_postgresql(look: Look) -> Iterator[Finding]:
    from ..store.health import postgresql_health

    health = postgresql_health(look.text("database"), look.clock)
    version = f"{health.version // 10000}.{health.version % 10000}"
    if health.standby:
        said = f"{version}, a standby, where nothing can be written"
        yield failed("postgresql", said, f"name the primary in {look.variable('database')}")
    elif health.version < OLDEST:
        said = f"{version} gets no corrections any more"
        yield warning("postgresql", said, f"{OLDEST // 10000} or newer")
    else:
        yield ok("postgresql", version)
    if health.encoding == "UTF8":
        yield ok("encoding", health.encoding)
    else:
        said = f"{health.encoding}: names in other scripts cannot be kept"
        yield failed("encoding", said, "createdb --encoding UTF8 --template template0 NAME")
    yield from _of_rights(health)
    yield _of_clock(health)
    said = f"{health.left} of {health.most} connections are free"
    if health.left < ROOM:
        remedy = "raise max_connections in postgresql.conf, or end idle clients"
        yield warning("connections", f"{said}; a server takes up to {ROOM}", remedy)
    else:
        yield ok("connections", said)


def _of_rights(health: PostgresqlHealth) -> Iterator[Finding]:
    if not health.may_create:
        schema = health.schema or "public"
        said = f"{health.role} may make no tables in the schema {schema}"
        remedy = f"GRANT CREATE, USAGE ON SCHEMA {schema} TO {health.role};"
        yield failed("rights", said, remedy)
    if health.remote and not health.encrypted:
        said = "what goes to PostgreSQL and back is not encrypted"
        yield warning("encryption", said, "append ?sslmode=verify-full to the URL")


def _of_clock(health: PostgresqlHealth) -> Finding:
    """Leases are by the database's clock; what people are shown beside them, by ours."""
    said = f"the database's is {abs(health.ahead_s):.1f} s "
    said += "ahead of ours" if health.ahead_s > 0 else "behind ours"
    if abs(health.ahead_s) > CLOCK_S + health.late_s:
        return warning("clock", said, "timedatectl set-ntp true, on both machines")
    return ok("clock", said)


def of_searches(look: Look) -> Iterator[Finding]:
    """Whether anybody runs what waits, and what could not be kept."""
    found = _opened(look)
    if found is None or not found.found or found.found != found.newest:
        return
    from ..store.health import waiting

    given = look.text("database")
    now = waiting(given)
    said = f"{now.queued} wait, {now.running} are being worked on"
    # an URL is not said again: a password in it would be missing there
    run = f"formwright scheduler --database {found.file}" if found.file else "formwright scheduler"
    if now.lost and not now.running:
        said = f"{now.lost} lost their scheduler {_ago(now.lost_s)} ago, and nobody went on"
        yield warning("searches", said, f"start `formwright serve`, or `{run}`")
    elif now.queued and not now.running and now.since_s > LONG_S:
        said = f"{now.queued} wait, the first for {_ago(now.since_s)}, and nothing runs"
        why = f" ({one_line(now.why, 200)})" if now.why else "; is a scheduler running?"
        yield warning("searches", said + why, f"start `formwright serve`, or `{run}`")
    else:
        yield ok("searches", said)
    if now.failed:
        said = f"{now.failed} have failed within a week; the newest: {one_line(now.said, 200)}"
        remedy = f"ask again: formwright fetch {now.artifact} --no-wait; see the server's log"
        yield warning("artifacts", said, remedy)
    else:
        yield ok("artifacts", "none has failed within a week")


def _ago(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _examined(look: Look) -> Examined:
    """Opened once, whoever asks."""

    def examined() -> Examined:
        with needs("service", "the store"):
            from ..store.examine import examine
        return examine(look.text("database"))

    return look.once("database", examined)


def _opened(look: Look) -> Examined | None:
    """None where it does not open: one check says so, and the others nothing."""
    try:
        return _examined(look)
    except FormwrightError:
        return None
