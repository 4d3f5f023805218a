"""`backup`: one look at a database, of either kind, as a SQLite file of the same revision.

Rows are copied (`copying.py`) in one transaction that only reads, beside servers and schedulers
that go on writing. SQLite's own ways are not taken: its backup interface begins anew whenever
another process has written, and with `VACUUM INTO` it copies tables of other tools too; neither
reads PostgreSQL. So one format restores into either kind. It must not know what it copies.
Next: `restoring.py`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import inspect

from ..errors import DatabaseError, Failed, InvalidRequest, NotFound, SetupError
from .copying import Copied, Told, copy_tables, silent
from .engine import Database, hold_tables, read_url
from .examine import examine
from .migrate import migrate_to, revision_of
from .schema import PREFIX
from .soundness import check, file_database


def backup(database: str, to: str | Path, told: Told = silent) -> Copied:
    """All searches of a database, and what is kept of their trials, as they are at one moment, in
    a new file `to`, or, if that is a folder, in one there that is named by the time. The file is
    there once it is whole, checked and on disk. Whoever has it has digests of the tokens too, so
    only its owner may read it. Raises NotFound, InvalidRequest, SetupError; Failed if it cannot be
    made."""
    found = examine(database)
    if not found.found:
        raise NotFound(f"there are no searches in {found.where}; nothing to back up")
    if not found.known:
        said = f"{found.where} has revision {found.found}, newer than this formwright"
        raise SetupError(f"{said}, {found.newest}; use a newer one")
    where = _place(Path(to).expanduser())
    with closing(Database(read_url(database))) as source:
        try:
            with _half(where) as half:
                rows = _fill(source, half, found.found, told)
                with closing(file_database(half)) as made:
                    damaged = check(made, told)
        except DatabaseError as error:
            said = str(error).replace(str(_half_of(where)), str(where))
            if "disk" in said:  # SQLite does not always say that it is full
                free = shutil.disk_usage(where.parent).free
                said += f"; {free / 2**20:.0f} MiB are free in {where.parent}"
            raise Failed(f"no backup was made: {said}") from error
    return Copied(str(where), where.stat().st_size, found.found, rows, damaged)


def _place(to: Path) -> Path:
    """Raises InvalidRequest if something is there already."""
    if to.is_dir():
        to /= f"formwright-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db"
    to = to.absolute()
    if not to.parent.is_dir():
        raise InvalidRequest(f"there is no folder {to.parent}; make it, or name another file")
    _check_free(to)
    return to


def _check_free(to: Path) -> None:
    if to.exists():
        raise InvalidRequest(f"{to} is there already; a backup is a new file")


def _fill(source: Database, half: Path, revision: str, told: Told) -> dict[str, int]:
    with source.read() as connection:
        names = inspect(connection).get_table_names()
    with closing(file_database(half)) as target, source.read() as read, target.write() as written:
        hold_tables(read, [name for name in names if name.startswith(PREFIX)])
        if revision_of(read, source.where) != revision:
            raise SetupError(f"{source.where} was brought up to date meanwhile; try again")
        migrate_to(written, revision)
        return copy_tables(read, written, told)


def _half_of(where: Path) -> Path:
    return where.with_name(f".{where.name}.part")


@contextmanager
def _half(where: Path) -> Iterator[Path]:
    """An empty file beside `where` that becomes it at the end, or is removed. One that a process
    has left that was killed is taken over."""
    half = _half_of(where)
    with _locked(half) as file:
        try:
            os.ftruncate(file, 0)
            _remove_journals(half)
            yield half
            os.fsync(file)
            _check_free(where)
            half.rename(where)
        except BaseException:
            half.unlink(missing_ok=True)
            raise
        finally:
            _remove_journals(half)
    folder = os.open(where.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _remove_journals(half: Path) -> None:
    for end in ("-journal", "-wal", "-shm"):
        half.with_name(half.name + end).unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The open file, which only its owner may read, and which nobody else has. Raises
    InvalidRequest."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), path.stat()):
                    os.fchmod(file, 0o600)
                    yield file
                    return
        except BlockingIOError:
            raise InvalidRequest(f"another backup is being written to {path}") from None
        finally:
            os.close(file)
