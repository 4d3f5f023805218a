"""Whether a file with our tables is whole: its pages, what its rows refer to, what artefacts hold.

It changes nothing. It must not know where the file came from. Next: `backups.py`, `restoring.py`.
"""

from __future__ import annotations

import hashlib
from itertools import groupby
from pathlib import Path

from sqlalchemy import URL, Connection, func, select

from ..errors import InternalError
from .copying import FEWER, Told, count, tables_of
from .engine import Database
from .schema import files, pieces, searches


def file_database(path: Path) -> Database:
    """Of a file as it is: nothing is made or brought up to date."""
    return Database(URL.create("sqlite", database=str(path.absolute())))


def check(database: Database, told: Told) -> tuple[str, ...]:
    """Files of artefacts that are not what they were made as: they are damaged by themselves, and
    all else is whole. Raises InternalError where it is not."""
    with database.read() as connection:
        told("checks of pages", 0, 1)
        for (said,) in connection.exec_driver_sql("PRAGMA integrity_check(1)"):
            if said != "ok":
                raise InternalError(f"{database.where} is damaged: {said}")
        told("checks of pages", 1, 1)
        stray = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if stray is not None:
            raise InternalError(f"{database.where}: a row of {stray[0]} has no {stray[2]}")
        names = {table.name for table in tables_of(connection)}
        return _damaged(connection, told) if pieces.name in names else ()


def _damaged(connection: Connection, told: Told) -> tuple[str, ...]:
    """Those of which a piece is missing, or says something else than its digest."""
    p, f = pieces.c, files.c
    bad, total, done = set(), count(connection, pieces), 0
    in_order = select(p.sha256, p.data).order_by(p.sha256, p.at)
    some = {"yield_per": FEWER[pieces.name]}
    rows = connection.execute(in_order, execution_options=some)
    for sha256, of_one in groupby(rows, key=lambda row: row.sha256):
        digest = hashlib.sha256()
        for row in of_one:
            digest.update(row.data)
            done += 1
        if digest.hexdigest() != sha256:
            bad.add(sha256)
        told("checks of pieces", done, total)
    sizes = select(p.sha256, func.sum(func.length(p.data)).label("size")).group_by(p.sha256)
    there = sizes.subquery()
    of_all = (
        select(searches.c.id, f.number, f.path, f.sha256, f.size, there.c.size.label("there"))
        .select_from(files.join(searches, searches.c.key == f.search_key))
        .outerjoin(there, there.c.sha256 == f.sha256)
        .order_by(searches.c.key, f.number, f.path)
    )
    return tuple(
        f"{row.path} of trial {row.number} of {row.id}"
        for row in connection.execute(of_all)
        if row.sha256 in bad or row.size != (row.there or 0)
    )
