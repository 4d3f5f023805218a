"""`Database`: one engine, and the two kinds of transactions: `read()` and `write()`.

Everything that differs between SQLite and PostgreSQL is here. Several processes may write the same
SQLite file, on one host. It must not know the tables. Next: `migrate.py`, `store.py`.
"""

from __future__ import annotations

import copy
import hashlib
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, OperationalError, SQLAlchemyError
from sqlalchemy.sql.dml import ReturningInsert

from ...errors import one_line
from ..errors import DatabaseError, InternalError, InvalidRequest, SetupError

BUSY_S = 30.0  # how long a transaction waits for another one to end
_WRITES = "formwright_writes"  # the execution option of connections that are going to write
_SEES = "formwright_sees"  # that of connections for somebody who sees searches of one owner only
_LOOK_S = (0.001, 0.01)  # between two looks at SQLite's lock, while another process has it
_INCREMENTAL = 2  # of SQLite's auto_vacuum
_CONNECTIONS = 16  # kept open; as many again may come for a moment


class Database:
    """Thread safe. What SQLAlchemy raises in a transaction comes out as InternalError."""

    def __init__(self, url: URL, busy_s: float = BUSY_S) -> None:
        """Raises SetupError if the database's driver is not installed."""
        self.where = url.database or "" if _is_sqlite(url) else url.render_as_string()
        self.is_sqlite = _is_sqlite(url)
        self._file = url.database if self.is_sqlite else None
        self._asked = threading.local()
        self._engine = _engine(url, busy_s, self._check_wanted)
        snapshot = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        self._reader = self._engine.execution_options(**snapshot)
        self._writer = self._engine.execution_options(**{_WRITES: True})
        # Threads queue here and only processes at SQLite's own lock, which is polled
        self._lock: AbstractContextManager[object] = (
            threading.Lock() if self.is_sqlite else nullcontext()
        )
        self._closed = threading.Event()
        self._watching: sqlite3.Connection | None = None  # writes nothing, so that it sees all

    def seen_by(self, owner: str) -> Database:
        """The same for somebody who sees only what belongs to this owner."""
        view = copy.copy(self)
        view._reader = self._reader.execution_options(**{_SEES: owner})
        view._writer = self._writer.execution_options(**{_SEES: owner})
        return view

    @property
    def is_view(self) -> bool:
        """Whether it is that of somebody who sees only what belongs to one owner."""
        return _SEES in self._reader.get_execution_options()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database from its first statement on."""
        with self._failures(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write: on SQLite the only one from its beginning; elsewhere it
        locks the row of its search first."""
        with self._failures(), self._lock:
            self._check_wanted()  # who has waited for other threads need not wait for processes
            with self._writer.begin() as connection:
                self._check_wanted()
                yield connection
                self._check_wanted()

    @contextmanager
    def unless(self, gone: Callable[[], bool]) -> Iterator[None]:
        """In this thread nothing is written any more once it is `gone` who asked for it: what has
        waited for another transaction raises InternalError then, and has changed nothing."""
        self._asked.gone = gone
        try:
            yield
        finally:
            del self._asked.gone

    def _check_wanted(self) -> None:
        gone: Callable[[], bool] | None = getattr(self._asked, "gone", None)
        if gone is not None and gone():
            raise InternalError("nobody waits for this change any more")

    def make_file(self) -> None:
        """A new file of SQLite is its owner's only: it has everybody's searches, and digests of
        tokens. What is there keeps its mode. Raises SetupError."""
        if not self.is_sqlite or self._file is None:
            return
        try:
            os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return
        except OSError as error:
            raise SetupError(f"cannot make {self._file}: {error.strerror}") from error

    def use_write_ahead_log(self, busy_s: float = BUSY_S) -> None:
        """Lets readers read while somebody writes; the file remembers. Nothing but on SQLite."""
        if not self.is_sqlite:
            return
        until = time.monotonic() + busy_s
        while True:
            try:
                with self._failures(), self._engine.connect() as connection:
                    connection.exec_driver_sql("COMMIT")  # the mode changes outside transactions
                    if not connection.exec_driver_sql("PRAGMA page_count").scalar_one():
                        # only a file without pages takes this: see `give_back`
                        connection.exec_driver_sql("PRAGMA auto_vacuum = INCREMENTAL")
                    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                return
            except InternalError as error:
                # SQLite does not wait here by itself while another process does the same
                busy = isinstance(error.__cause__, OperationalError) and "locked" in str(error)
                if not busy or time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def give_back(self, pages: int) -> tuple[int, bool]:
        """Cuts off up to so many pages of an SQLite file that nothing is in any more: how many
        bytes there are still of such, and whether they can be cut off. A file that an older
        formwright has made keeps them for what comes; so does PostgreSQL, which says 0."""
        if not self.is_sqlite:
            return 0, False
        with self.write() as connection:

            def ask(pragma: str) -> int:
                found: int = connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one()
                return found

            can = ask("auto_vacuum") == _INCREMENTAL
            for _ in range(pages if can else 0):
                # one at a time: a page is a step of the statement, and Python's driver takes one
                connection.exec_driver_sql("PRAGMA incremental_vacuum(1)")
            return ask("freelist_count") * ask("page_size"), can

    def version(self) -> int | None:
        """Another number after every change that anybody has committed; None where the database
        cannot say so at once. Only from one thread."""
        if not self.is_sqlite or self._closed.is_set():
            return None
        try:
            if self._watching is None:
                self._watching = sqlite3.connect(
                    self.where, timeout=0, isolation_level=None, check_same_thread=False
                )
            version: int = self._watching.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:  # locked, perhaps: whoever asks must not wait
            return None
        return version

    def size(self, connection: Connection) -> int:
        """Bytes that it takes on its disk, with what is still to be moved to its place."""
        if self.is_sqlite:
            files = [Path(self.where + end) for end in ("", "-wal")]
            return sum(file.stat().st_size for file in files if file.exists())
        here = select(func.pg_database_size(func.current_database()))
        return int(connection.execute(here).scalar_one())

    def limit(self, connection: Connection, seconds: float) -> None:
        """No statement of this transaction takes longer. On SQLite a reader waits for nobody."""
        if not self.is_sqlite:
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {round(seconds * 1000)}")

    def close(self) -> None:
        self._closed.set()
        if self._watching is not None:
            self._watching.close()
        self._engine.dispose()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        if self._closed.is_set():
            raise InternalError(f"the store {self.where} is closed")
        try:
            yield
        except DataError as error:  # a character or a number that it does not keep
            why = one_line(str(error.orig or error))
            raise InvalidRequest(f"a value that the database does not take: {why}") from error
        except SQLAlchemyError as error:
            why = one_line(str(getattr(error, "orig", None) or error))
            raise DatabaseError(f"the database {self.where} failed: {why}") from error


def sees(connection: Connection) -> str | None:
    """Whose searches are seen in this transaction; None: everybody's."""
    owner: str | None = connection.get_execution_options().get(_SEES)
    return owner


def clock(connection: Connection) -> datetime:
    """Now, by the one clock that all who share the database agree on: the database's own, and the
    host's for SQLite, which serves one host."""
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    return now.astimezone(UTC)


def insert_if_new(connection: Connection, table: Table, column: str, row: dict[str, Any]) -> bool:
    """Inserts the row unless there is one with its value of the unique `column`, and says whether;
    there is one afterwards. Waits for another transaction that is inserting the same to end."""
    made = _insert_if_new(connection.dialect.name, table, column)
    return connection.execute(made, row).first() is not None


@cache
def _insert_if_new(dialect: str, table: Table, column: str) -> ReturningInsert[Any]:
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    quiet = insert(table).on_conflict_do_nothing(index_elements=[column])
    return quiet.returning(table.c[column])


def lock_all(connection: Connection, what: str) -> None:
    """Until the transaction ends nobody else has the lock of this name. On SQLite a transaction
    that writes is alone anyway."""
    if connection.dialect.name != "sqlite":
        digest = hashlib.sha256(f"formwright {what}".encode()).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        connection.execute(select(func.pg_advisory_xact_lock(key)))


def hold_tables(connection: Connection, names: Sequence[str], alone: bool = False) -> None:
    """The first statement of a transaction: until it ends nobody changes what these tables are,
    or, if it is to be `alone`, uses them. SQLite sees to that by itself."""
    if connection.dialect.name != "sqlite" and names:
        quoted = ", ".join(map(connection.dialect.identifier_preparer.quote, names))
        mode = "ACCESS EXCLUSIVE" if alone else "ACCESS SHARE"
        connection.exec_driver_sql(f"LOCK TABLE {quoted} IN {mode} MODE")


def follow_keys(connection: Connection, tables: Iterable[Table]) -> None:
    """Keys that the database counts by itself go on behind those that are there: rows have come
    with theirs. SQLite looks at the rows."""
    if connection.dialect.name == "sqlite":
        return
    for table in tables:
        key = table.autoincrement_column
        if key is not None:
            counted = func.pg_get_serial_sequence(table.name, key.name)
            last = select(func.max(key)).scalar_subquery()
            set_to = func.setval(counted, func.coalesce(last, 1), last.is_not(None))
            connection.execute(select(set_to).where(counted.is_not(None)))


def read_url(given: str) -> URL:
    """The URL that was given, or the SQLite file whose path was. Raises SetupError."""
    try:
        url = make_url(given) if "://" in given else URL.create("sqlite", database=given)
    except (ArgumentError, ValueError) as error:
        raise SetupError(f"not the URL of a database: {given!r}; wanted a path or a URL") from error
    kind = url.get_backend_name()
    if kind == "postgresql":
        # whichever driver SQLAlchemy would take by default, which differs between its versions
        return url if "+" in url.drivername else url.set(drivername="postgresql+psycopg")
    if kind != "sqlite":
        wanted = "wanted a path, sqlite:///PATH or postgresql://HOST/NAME"
        raise SetupError(f"databases of kind {kind!r} are not supported; {wanted}")
    return url.set(drivername="sqlite", database=str(_sqlite_file(url.database or "")))


def _sqlite_file(path: str) -> Path:
    if not path or path == ":memory:" or path.startswith("file:"):
        raise SetupError(f"{path!r} is not a file; a store is a file, so that it outlives a server")
    file = Path(path).expanduser().absolute()
    if file.is_dir():
        raise SetupError(f"{file} is a folder; name a file in it")
    if not file.parent.is_dir():
        raise SetupError(f"there is no folder {file.parent}; make it, or name another database")
    return file


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _engine(url: URL, busy_s: float, go_on: Callable[[], None]) -> Engine:
    """`go_on` raises once a transaction that waits to begin is not wanted any more."""
    extra: dict[str, Any] = {"pool_pre_ping": True}  # a server may have closed a connection
    # whatever the database was made with: in SQL_ASCII texts would come as bytes
    extra["connect_args"] = {"client_encoding": "utf8"}
    if _is_sqlite(url):
        extra = {"connect_args": {"timeout": busy_s}}
    try:
        engine = create_engine(url, pool_size=_CONNECTIONS, max_overflow=_CONNECTIONS, **extra)
    except ModuleNotFoundError as error:
        name = "'formwright[postgresql]'" if error.name == "psycopg" else error.name
        raise SetupError(f"the driver is missing: pip install {name}") from error
    except (ArgumentError, SQLAlchemyError) as error:
        raise SetupError(f"cannot use {url.render_as_string()}: {one_line(str(error))}") from error
    if _is_sqlite(url):
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", partial(_begin_sqlite, busy_s, go_on))
    return engine


def _set_up_sqlite(connection: Any, _: object) -> None:
    """Settings of a connection; none of them writes to the file."""
    # The driver would begin transactions by itself, late and not before SELECT or DDL
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")  # what was committed survives a power cut


def _begin_sqlite(busy_s: float, go_on: Callable[[], None], connection: Connection) -> None:
    # By the driver itself: every transaction begins here, and SQLAlchemy's own way to it is long.
    # A transaction that reads first and writes later fails at once if another has written
    # meanwhile, whatever the timeout; so one that is going to write says so from the start.
    raw: Any = connection.connection.driver_connection
    if not connection.get_execution_options().get(_WRITES):
        raw.execute("BEGIN")
        return
    # SQLite would look every 0.1 s, and one of twenty who write without a pause would never see it
    # free; who looks often and at random gets his turn.
    raw.execute("PRAGMA busy_timeout = 0")
    until = time.monotonic() + busy_s
    try:
        while True:
            try:
                raw.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > until:
                    raise OperationalError("BEGIN IMMEDIATE", None, error) from error
                go_on()
                time.sleep(random.uniform(*_LOOK_S))
    finally:
        raw.execute(f"PRAGMA busy_timeout = {round(busy_s * 1000)}")
