"""Where a study of Optuna is written, whole or not at all.

`Study.add_trials` is one transaction a trial, each looking at all before it: ten minutes and more
for ten thousand. In a database all of it is one transaction here, in the file of a journal one new
file. It must not know what a study is made of. Next: `study_tables.py`;
`study_export.py` makes one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileSymlinkLock

from ...errors import one_line
from ..errors import SearchError
from .study_draft import Draft, May, directions_of, refuse, system_attrs
from .study_tables import to_database

SQLITE = (".db", ".sqlite", ".sqlite3")
SQLITE_URL = re.compile(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", re.DOTALL)
HEADER = b"SQLite format 3\x00"


@dataclass(frozen=True)
class Place:
    """A storage, its file where it is a journal, and the file that was made by opening it."""

    storage: BaseStorage
    journal: Path | None = None
    made: Path | None = None


def is_sqlite(path: Path) -> bool:
    """Whether a file is SQLite's, or is to be by its name."""
    with suppress(OSError), path.open("rb") as file:
        if head := file.read(len(HEADER)):
            return head == HEADER
    return path.suffix in SQLITE


def study_url(target: str | os.PathLike[str]) -> str:
    """The URL of a database; empty if a journal is meant.

    >>> study_url("sqlite:///a.db"), study_url("a.db"), study_url("a.log")
    ('sqlite:///a.db', 'sqlite:///a.db', '')
    """
    text = os.fspath(target)
    return text if "://" in text else f"sqlite:///{text}" if is_sqlite(Path(text)) else ""


def _with_driver(url: str) -> str:
    """Whichever driver SQLAlchemy would take by default differs between its versions."""
    scheme = "postgresql://"
    ours = url.startswith(scheme) and find_spec("psycopg")
    return f"postgresql+psycopg://{url.removeprefix(scheme)}" if ours else url


def opened(target: str | os.PathLike[str] | BaseStorage | None) -> Place:
    """Raises SearchError."""
    if target is None or isinstance(target, BaseStorage):
        return Place(target or InMemoryStorage())
    url, path = study_url(target), Path(target)
    with _as_one_line("it does not open"):
        if url:
            file = SQLITE_URL.fullmatch(url)
            new = Path(file[1]) if file and not Path(file[1]).exists() else None
            return Place(RDBStorage(_with_driver(url)), made=new)
        # this makes the file, which is to be there whole or not at all
        missing = not path.exists()
        try:
            return Place(JournalStorage(JournalFileBackend(str(path))), path)
        finally:
            if missing:
                path.unlink(missing_ok=True)


def written(place: Place, draft: Draft, may_go: May | None) -> None:
    """Raises SearchError where there is a study of that name, unless it may go."""
    try:
        with _as_one_line("the study cannot be written"):
            if place.journal:
                _to_journal(place.journal, draft, may_go)
            elif isinstance(place.storage, RDBStorage):
                to_database(place.storage, draft, may_go)
            else:
                _one_by_one(place.storage, draft, may_go)
    except BaseException:
        _forget(place)
        raise


def _forget(place: Place) -> None:
    """The database that was made for a study that could not be written; nobody else's."""
    if place.made and isinstance(place.storage, RDBStorage):
        empty = not place.storage.get_all_studies()
        place.storage.engine.dispose()
        if empty:
            place.made.unlink(missing_ok=True)


@contextmanager
def _as_one_line(what: str) -> Iterator[None]:
    """Whatever a database, its driver or a file raises."""
    try:
        yield
    except SearchError:
        raise
    except Exception as error:
        said = getattr(error, "orig", None) or error  # of the driver
        raise SearchError(f"{what}: {one_line(f'{type(said).__name__}: {said}', 300)}") from error


def _one_by_one(storage: BaseStorage, draft: Draft, may_go: May | None) -> None:
    """By what every storage has."""
    for old in storage.get_all_studies():
        if old.study_name == draft.name:
            refuse(draft.name, old.user_attrs, may_go)
            storage.delete_study(old._study_id)
    id = storage.create_new_study(directions_of(draft), draft.name)
    try:
        for name, value in system_attrs(draft).items():
            storage.set_study_system_attr(id, name, value)
        for name, value in draft.user_attrs.items():
            storage.set_study_user_attr(id, name, value)
        for trial in draft.trials:
            storage.create_new_trial(id, trial)
    except BaseException:
        storage.delete_study(id)
        raise


class _Pending(BaseJournalBackend):
    """A journal with what is to be written behind it, which nobody else sees yet."""

    def __init__(self, journal: BaseJournalBackend) -> None:
        self._logs = list(journal.read_logs(0))
        self.new: list[str] = []

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        yield from self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        self.new += lines
        self._logs += map(json.loads, lines)


def _to_journal(path: Path, draft: Draft, may_go: May | None) -> None:
    """While nobody else writes: ids in a journal are places in it."""
    path = path.resolve()
    made = path.with_name(f".{path.name}.{os.getpid()}")
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        before = path.read_bytes() if path.exists() else b""
        _check_journal(path, before)
        made.write_bytes(before)
        pending = _Pending(JournalFileBackend(str(made)))
        _one_by_one(JournalStorage(pending), draft, may_go)
        with made.open("ab") as file:
            file.write("".join(f"{line}\n" for line in pending.new).encode())
            file.flush()
            os.fsync(file.fileno())
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)
        lock.release()


def _check_journal(path: Path, text: bytes) -> None:
    """Optuna takes a last line that is no JSON for one that is being written."""
    last = text.removesuffix(b"\n").rpartition(b"\n")[2]
    with suppress(ValueError):
        if not text or (text.endswith(b"\n") and isinstance(json.loads(last), dict)):
            return
    raise SearchError(f"{path} is no journal of Optuna, or its last line is not whole")
