"""Brings a database to the tables this code knows, or refuses one that is newer.

Alembic runs inside the package, with its own version table, so that another tool's migrations in
the same database are not disturbed. Next: `migrations/versions/`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from ..errors import SetupError
from .engine import Database, lock_all
from .schema import PREFIX, Base

VERSION_TABLE = f"{PREFIX}alembic_version"
LOCK = "schema"
_FOLDER = Path(__file__).parent / "migrations"


def upgrade(database: Database) -> None:
    """Creates the tables of a new database or brings older ones up to date; several processes may
    do so at once. Raises SetupError, with nothing written, where the database is newer."""
    scripts = ScriptDirectory(str(_FOLDER))
    with database.read() as connection:
        done = _is_current(connection, scripts, database.where)
    database.use_write_ahead_log()
    if done:
        return
    with database.write() as connection:
        lock_all(connection, LOCK)
        if _is_current(connection, scripts, database.where):
            return  # another process was faster
        migrate_to(connection)


def migrate_to(connection: Connection, revision: str = "head") -> None:
    """Makes the tables of this revision, or brings older ones up to it. A part of the caller's
    transaction, which has the lock `LOCK`."""
    context = migration_context(connection, ScriptDirectory(str(_FOLDER)), revision)
    with Operations.context(context):
        context.run_migrations()


def revision_of(connection: Connection, where: str) -> str:
    """The revision of our tables there, empty where there are none. Raises SetupError where they
    are newer than this code."""
    _is_current(connection, ScriptDirectory(str(_FOLDER)), where)
    return ", ".join(sorted(migration_context(connection).get_current_heads()))


def known_revisions() -> tuple[list[str], str]:
    """All that this code knows, and the newest of them."""
    scripts = ScriptDirectory(str(_FOLDER))
    known = sorted(script.revision for script in scripts.walk_revisions())
    return known, ", ".join(scripts.get_heads())


def migration_context(
    connection: Connection, scripts: ScriptDirectory | None = None, to: str = "head"
) -> MigrationContext:
    """Alembic's view of our tables in this database, and of nothing else there."""
    options: dict[str, Any] = {
        "version_table": VERSION_TABLE,
        "target_metadata": Base.metadata,
        "include_object": _is_ours,
    }
    if scripts is not None:
        known = scripts
        options["fn"] = lambda revision, _: known._upgrade_revs(to, revision)
    return MigrationContext.configure(connection, opts=options)


def _is_current(connection: Connection, scripts: ScriptDirectory, where: str) -> bool:
    found = set(migration_context(connection).get_current_heads())
    known = sorted(script.revision for script in scripts.walk_revisions())
    if newer := found - set(known):
        raise SetupError(
            f"the database {where} has revision {', '.join(sorted(newer))}, this formwright knows"
            f" {', '.join(known)}; use a newer formwright or another database"
        )
    return found == set(scripts.get_heads())


def _is_ours(_: object, name: str | None, kind: str, reflected: bool, compare_to: object) -> bool:
    return kind != "table" or bool(name and name.startswith(PREFIX) and name != VERSION_TABLE)
