"""Our tables, row by row, from one database into another of any kind: what backups are made of.

Both have them at the same revision, whichever it is: columns are read from the database that is
written, not from `schema.py`. No more than a piece of a table is in memory. It must not know files.
Next: `backups.py`, `restoring.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection, DateTime, MetaData, Table, func, insert, select

from ..errors import InternalError
from .migrate import VERSION_TABLE
from .schema import PREFIX, UtcTime

ROWS = 1000  # at a time
FEWER = {f"{PREFIX}pieces": 16}  # of rows that are large
# who is signed in at a page signs in again; a copy must not let anybody in
LEFT_OUT = (f"{PREFIX}sessions",)

Told = Callable[[str, int, int], None]  # of what, how many are done, of how many


def silent(what: str, done: int, total: int) -> None:
    """For whom nobody watches."""


@dataclass(frozen=True)
class Copied:
    """What was copied: the `file`, its `size` in bytes, the `revision` of its tables, and the rows
    of each, by its name. `damaged` are files of artefacts that are not what they were made as."""

    file: str
    size: int
    revision: str
    rows: dict[str, int] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()


def tables_of(connection: Connection) -> list[Table]:
    """Ours, as they are there, each after those that it refers to; with types that every kind of
    database has."""
    found = MetaData()
    found.reflect(connection, only=lambda name, _: name.startswith(PREFIX))
    tables = [table for table in found.sorted_tables if table.name != VERSION_TABLE]
    for column in (column for table in tables for column in table.columns):
        is_time = isinstance(column.type, DateTime)
        column.type = UtcTime() if is_time else column.type.as_generic()
    return tables


def short(table: Table) -> str:
    """Its name for people."""
    return table.name.removeprefix(PREFIX)


def count(connection: Connection, table: Table) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def copy_tables(source: Connection, target: Connection, told: Told) -> dict[str, int]:
    """How many rows of each table; those of the target are empty before."""
    copied = {}
    for table in tables_of(target):
        if table.name not in LEFT_OUT:
            copied[short(table)] = _copy(source, target, table, told)
    return copied


def _copy(source: Connection, target: Connection, table: Table, told: Told) -> int:
    name, total, done = short(table), count(source, table), 0
    told(name, done, total)
    some = {"yield_per": FEWER.get(table.name, ROWS)}  # by a cursor that stays on the server
    write = insert(table)
    for rows in source.execute(select(table), execution_options=some).mappings().partitions():
        target.execute(write, [dict(row) for row in rows])
        done += len(rows)
        told(name, done, total)
    if (there := count(target, table)) != total or done != total:
        raise InternalError(f"{total} rows of {name} were to be copied, {there} are there")
    return total
