"""`restore`: a backup into a database of either kind that has nothing of ours yet.

One transaction: all of it is there, or nothing. Tables are made at the revision of the backup,
filled, and then brought up to date as every older database is. It must not know how a backup is
made. Next: `backups.py`.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, inspect, text, update

from ..errors import DatabaseError, InternalError, InvalidRequest, NotAllowed, NotFound
from ..records import ArtifactState
from .copying import Copied, Told, copy_tables, count, short, silent, tables_of
from .engine import Database, follow_keys, hold_tables, lock_all, read_url
from .examine import examine
from .migrate import LOCK, VERSION_TABLE, migrate_to, revision_of
from .schema import Base, artifacts, searches
from .soundness import check, file_database

EPOCHS = 1000  # more claims than anybody has made since the backup: theirs are fenced


def restore(file: str | Path, database: str, told: Told = silent) -> Copied:
    """What `backup` has made, or a SQLite database as it is, into an empty database. Searches that
    ran go on with the next scheduler, artefacts that were being made are made again. Raises
    NotFound, InvalidRequest if the file is no backup, or of a newer formwright; NotAllowed, with
    nothing written, if the database is not empty."""
    where = Path(file).expanduser().absolute()
    revision = _revision(where)
    url = read_url(database)
    with closing(file_database(where)) as source:
        try:
            damaged = check(source, told)
        except InternalError as error:
            raise InvalidRequest(f"{where} is damaged, nothing is restored: {error}") from error
        with closing(Database(url)) as target:
            target.make_file()  # whoever opens it first makes it, and only this one for its owner
            with target.read() as connection:
                _check_empty(connection, target.where)
            target.use_write_ahead_log()
            with source.read() as read, target.write() as written:
                lock_all(written, LOCK)
                _clear(written, target.where)
                migrate_to(written, revision)
                rows = copy_tables(read, written, told)
                migrate_to(written)
                _let_go(written)
                follow_keys(written, Base.metadata.sorted_tables)
    return Copied(str(where), where.stat().st_size, revision, rows, damaged)


def _revision(where: Path) -> str:
    """Of a backup that this code can read."""
    if not where.is_file():
        raise NotFound(f"there is no file {where}; `formwright backup` makes one")
    try:
        found = examine(str(where))
    except DatabaseError as error:
        raise InvalidRequest(f"{where} is no backup that can be read: {error}") from error
    if not found.found:
        raise InvalidRequest(f"{where} is no backup: it has none of our tables")
    if not found.known:
        said = f"{where} has revision {found.found}, newer than this formwright, {found.newest}"
        raise InvalidRequest(f"{said}; restore it with a newer one")
    return found.found


def _check_empty(connection: Connection, where: str) -> None:
    """Raises NotAllowed; SetupError if its tables are newer than this code."""
    revision_of(connection, where)
    counts = {short(table): count(connection, table) for table in tables_of(connection)}
    if held := ", ".join(f"{rows} {name}" for name, rows in counts.items() if rows):
        said = f"{where} is not empty, it has {held}"
        raise NotAllowed(f"{said}; name a new database, or move this one away")


def _clear(connection: Connection, where: str) -> None:
    """Our tables, which are empty, are made anew; tables of others stay."""
    tables = tables_of(connection)
    hold_tables(connection, [table.name for table in tables], alone=True)
    _check_empty(connection, where)
    for table in reversed(tables):
        table.drop(connection)
    if inspect(connection).has_table(VERSION_TABLE):
        connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))


def _let_go(connection: Connection) -> None:
    """Whoever held something held it in another database. What a search was told of before is what
    the next scheduler goes on from, as after any that was lost; it is nobody's fault."""
    for table in (searches, artifacts):
        nobody = {"owner": "", "lease_expires": None, "epoch": table.c.epoch + EPOCHS}
        connection.execute(update(table).values(nobody))
    a = artifacts.c
    again = {"state": ArtifactState.QUEUED.value, "tries": a.tries - 1, "done": 0, "step": ""}
    connection.execute(update(artifacts).where(a.state == ArtifactState.RUNNING).values(again))
