"""Where a study of Optuna is written, whole or not at all.

`Study.add_trials` is one transaction a trial, each looking at all before it: ten minutes and more
for ten thousand. In a database all of it is one transaction here, in the file of a journal one new
file. It must not know what a study is made of. Next: `study_export.py`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileSymlinkLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from ...errors import one_line
from ..errors import SearchError

SQLITE = (".db", ".sqlite", ".sqlite3")
SQLITE_URL = re.compile(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", re.DOTALL)
HEADER = b"SQLite format 3\x00"
LONGEST = 512  # name of a study
AT_ONCE = 1000  # trials whose rows are in memory

May = Callable[[Mapping[str, Any]], bool]  # by user attributes: whether such a study may go


@dataclass(frozen=True)
class Draft:
    """A study before it is written; trials are in the order of their numbers."""

    name: str
    directions: Sequence[str]
    metrics: Sequence[str]
    user_attrs: Mapping[str, Any]
    trials: Sequence[FrozenTrial]


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
                _to_database(place.storage, draft, may_go)
            else:
                _one_by_one(place.storage, draft, may_go)
    except BaseException:
        if place.made and isinstance(place.storage, RDBStorage):
            place.storage.engine.dispose()
            place.made.unlink(missing_ok=True)
        raise


def check_name(name: str) -> None:
    """Raises SearchError for what no study can be called everywhere."""
    if len(name) > LONGEST or not name.isprintable():
        said = f"at most {LONGEST} characters that can be printed"
        raise SearchError(f"{name[:50]!r} is no name of a study: wanted {said}")


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


def _refuse(name: str, attrs: Mapping[str, Any], may_go: May | None) -> None:
    if may_go is None:
        raise SearchError(f"there is a study {name!r} already; replace it, or name another")
    if not may_go(attrs):
        raise SearchError(f"the study {name!r} was not made of this search; name another")


def _system_attrs(draft: Draft) -> dict[str, Any]:
    """How Optuna writes the names of the metrics is its own business."""
    memory = InMemoryStorage()
    study = optuna.create_study(storage=memory, study_name="draft", directions=_directions(draft))
    study.set_metric_names(list(draft.metrics))
    return dict(memory.get_study_system_attrs(memory.get_study_id_from_name("draft")))


def _directions(draft: Draft) -> list[StudyDirection]:
    return [StudyDirection[direction.upper()] for direction in draft.directions]


def _one_by_one(storage: BaseStorage, draft: Draft, may_go: May | None) -> None:
    """By what every storage has."""
    for old in storage.get_all_studies():
        if old.study_name == draft.name:
            _refuse(draft.name, old.user_attrs, may_go)
            storage.delete_study(old._study_id)
    id = storage.create_new_study(_directions(draft), draft.name)
    try:
        for name, value in _system_attrs(draft).items():
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


def _to_database(storage: RDBStorage, draft: Draft, may_go: May | None) -> None:
    """All in one transaction, into the tables of Optuna."""
    from optuna.storages._rdb import models  # its engine and its tables have no public name

    with storage.engine.begin() as connection:
        _make_room(connection, models.BaseModel.metadata, draft.name, may_go)
        _fill(connection, models, draft)


def _make_room(connection: Any, metadata: Any, name: str, may_go: May | None) -> None:
    studies, attrs = metadata.tables["studies"], metadata.tables["study_user_attributes"]
    called = studies.select().with_only_columns(studies.c.study_id)
    for (old,) in connection.execute(called.where(studies.c.study_name == name)).all():
        rows = connection.execute(attrs.select().where(attrs.c.study_id == old))
        _refuse(name, {row.key: json.loads(row.value_json) for row in rows}, may_go)
        _delete(connection, metadata, old)


def _fill(connection: Any, models: Any, draft: Draft) -> None:
    tables = models.BaseModel.metadata.tables
    studies, trials = tables["studies"], tables["trials"]
    made = connection.execute(studies.insert(), {"study_name": draft.name})
    (study,) = made.inserted_primary_key
    for name, rows in _rows_of_study(draft, study).items():
        connection.execute(tables[name].insert(), rows)
    places = trials.select().with_only_columns(trials.c.trial_id, trials.c.number)
    for first in range(0, len(draft.trials), AT_ONCE):
        some = list(enumerate(draft.trials[first : first + AT_ONCE], first))
        connection.execute(trials.insert(), [_row(trial, study, at) for at, trial in some])
        ours = (trials.c.study_id == study) & (trials.c.number >= first)
        ids = {row.number: row.trial_id for row in connection.execute(places.where(ours))}
        for name, rows in _rows_of_trials(models, [(ids[at], t) for at, t in some]).items():
            if rows:
                connection.execute(tables[name].insert(), rows)


def _delete(connection: Any, metadata: Any, study: int) -> None:
    """A study and all that hangs on it."""
    trials = metadata.tables["trials"]
    ours = trials.select().with_only_columns(trials.c.trial_id).where(trials.c.study_id == study)
    for table in reversed(metadata.sorted_tables):
        if "study_id" in table.c:
            connection.execute(table.delete().where(table.c.study_id == study))
        elif "trial_id" in table.c:
            connection.execute(table.delete().where(table.c.trial_id.in_(ours)))


Rows = dict[str, list[dict[str, Any]]]  # by table


def _rows_of_study(draft: Draft, study: int) -> Rows:
    def attrs(given: Mapping[str, Any]) -> list[dict[str, Any]]:
        texts = {name: json.dumps(value) for name, value in given.items()}
        return [{"study_id": study, "key": k, "value_json": text} for k, text in texts.items()]

    return {
        "study_directions": [
            {"study_id": study, "objective": at, "direction": direction}
            for at, direction in enumerate(_directions(draft))
        ],
        "study_user_attributes": attrs(draft.user_attrs),
        "study_system_attributes": attrs(_system_attrs(draft)),
    }


def _row(trial: FrozenTrial, study: int, number: int) -> dict[str, Any]:
    return {
        "study_id": study,
        "number": number,
        "state": trial.state,
        "datetime_start": _utc(trial.datetime_start),
        "datetime_complete": _utc(trial.datetime_complete),
    }


def _rows_of_trials(models: Any, trials: Iterable[tuple[int, FrozenTrial]]) -> Rows:
    stored = models.TrialValueModel.value_to_stored_repr
    step_stored = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
    texts: dict[int, str] = {}  # of distributions, most of which many trials share
    made: Rows = {
        "trial_params": [],
        "trial_values": [],
        "trial_intermediate_values": [],
        "trial_user_attributes": [],
        "trial_system_attributes": [],
    }
    for own, trial in trials:
        for name, value in trial.params.items():
            of = trial.distributions[name]
            text = texts.get(key := id(of)) or distribution_to_json(of)
            texts[key] = text
            made["trial_params"].append(
                {
                    "trial_id": own,
                    "param_name": name,
                    "param_value": of.to_internal_repr(value),
                    "distribution_json": text,
                }
            )
        for at, value in enumerate(trial.values or ()):
            number, kind = stored(value)
            made["trial_values"].append(
                {"trial_id": own, "objective": at, "value": number, "value_type": kind}
            )
        for step, value in trial.intermediate_values.items():
            number, kind = step_stored(value)
            made["trial_intermediate_values"].append(
                {
                    "trial_id": own,
                    "step": step,
                    "intermediate_value": number,
                    "intermediate_value_type": kind,
                }
            )
        for name, attrs in (
            ("trial_user_attributes", trial.user_attrs),
            ("trial_system_attributes", trial.system_attrs),
        ):
            made[name] += [
                {"trial_id": own, "key": k, "value_json": json.dumps(v)} for k, v in attrs.items()
            ]
    return made


def _utc(time: datetime | None) -> datetime | None:
    """As Optuna keeps times."""
    return None if time is None else time.astimezone(UTC).replace(tzinfo=None)
