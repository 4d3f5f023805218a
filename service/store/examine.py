"""What a database holds, without making or changing anything in it.

Next: `migrate.py`, which does change it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL

from .engine import Database, read_url
from .migrate import known_revisions, migration_context

BUSY_S = 5.0  # whoever only looks does not wait long


@dataclass(frozen=True)
class Examined:
    """`file` is that of SQLite. `exists` is False where there is no such file; `found` is the
    version of the schema, empty where there is none of ours; `newest` the one that we know, and
    `known` whether we know what was found."""

    where: str
    file: Path | None
    exists: bool = False
    found: str = ""
    newest: str = ""
    known: bool = True


def examine(given: str) -> Examined:
    """A path or a URL. Raises SetupError for what cannot be one, InternalError where the database
    does not open."""
    url = hurried(given)
    file = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
    where = read_url(given).render_as_string()
    known, newest = known_revisions()
    if file is not None and not file.exists():
        return Examined(str(file), file, newest=newest)
    database = Database(url, BUSY_S)
    try:
        with database.read() as connection:
            heads = migration_context(connection).get_current_heads()
    finally:
        database.close()
    found = ", ".join(sorted(heads))
    return Examined(str(file or where), file, True, found, newest, known=set(heads) <= set(known))


def hurried(given: str) -> URL:
    """The URL of a path or a URL, for whoever only looks: he waits for nobody long, and reads
    databases that cannot be used too. Raises SetupError."""
    url = read_url(given)
    if url.get_backend_name() != "postgresql":
        return url
    # without an encoding texts of a database in SQL_ASCII come as bytes, also to SQLAlchemy
    wanted = {"connect_timeout": str(round(BUSY_S)), "client_encoding": "utf8"}
    return url.update_query_dict({name: wanted[name] for name in wanted if name not in url.query})
