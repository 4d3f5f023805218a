"""What is read: rows to the nouns of `records.py`. Every function works in the transaction that it
is given, so what one method returns belongs together. Next: `writes.py`.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select

from ...search import ArchSpec, SearchSpec, Trial, TrialState
from ..errors import InternalError, NotFound
from ..records import Event, SearchRecord, SearchState, TrialRecord
from .schema import architectures, events, metrics, searches, trials

ANSWERS = 256  # trials of one architecture that are looked at
Condition = ColumnElement[bool]
T = TypeVar("T")
log = logging.getLogger("formwright.service")
architecture = lru_cache(maxsize=4096)(ArchSpec.from_json)  # frozen, and often asked for


def search_row(connection: Connection, id: str, lock: bool = False) -> Row[Any]:
    """The row of a search; `lock` keeps other writers away from the search until the transaction
    ends (SQLite does so anyway). Raises NotFound."""
    statement = select(searches).where(searches.c.id == id)
    row = connection.execute(statement.with_for_update() if lock else statement).one_or_none()
    if row is None:
        raise NotFound(f"there is no search {id!r}")
    return row


def search_record(connection: Connection, id: str) -> SearchRecord:
    """Raises NotFound, or InternalError if what is there cannot be read."""
    row = search_row(connection, id)
    counts = _counts(connection, [row])
    return readable(f"search {id}", lambda: _search(row, counts[row.key]))


def search_records(connection: Connection, rows: Sequence[Row[Any]]) -> list[SearchRecord]:
    """Those of the rows that can be read; the log tells of the others."""
    counts = _counts(connection, rows)
    return _those(
        rows, lambda row: readable(f"search {row.id}", lambda: _search(row, counts[row.key]))
    )


def readable(what: str, make: Callable[[], T]) -> T:
    """What `make` makes of a row. Raises InternalError where it is not what this code writes: by
    another hand, or by another version."""
    try:
        return make()
    except (ValueError, LookupError, TypeError) as error:
        raise InternalError(f"the record of {what} cannot be read: {error}") from error


def _those(rows: Iterable[Row[Any]], make: Callable[[Row[Any]], T]) -> list[T]:
    """One bad row must not hide all others."""
    made = []
    for row in rows:
        try:
            made.append(make(row))
        except InternalError as error:
            log.warning("left out: %s", error)
    return made


def _counts(
    connection: Connection, rows: Sequence[Row[Any]]
) -> Mapping[int, dict[TrialState, int]]:
    t = trials.c
    statement = (
        select(t.search_key, t.state, func.count())
        .where(t.search_key.in_([row.key for row in rows]))
        .group_by(t.search_key, t.state)
    )
    counts: dict[int, dict[TrialState, int]] = defaultdict(dict)
    for key, state, count in connection.execute(statement):
        if state in TrialState.__members__:
            counts[key][TrialState(state)] = count
    return counts


def _search(row: Row[Any], counts: Mapping[TrialState, int]) -> SearchRecord:
    return SearchRecord(
        id=row.id,
        spec=SearchSpec.from_json(row.spec),
        state=SearchState(row.state),
        display_name=row.display_name,
        error=row.error,
        counts=counts,
        last_sequence=row.last_sequence,
        created=row.created,
        updated=row.updated,
    )


def newest_searches(connection: Connection, before: int, limit: int) -> list[Row[Any]]:
    """Rows of searches that came before `before` (0: all), newest first."""
    statement = select(searches).order_by(searches.c.key.desc()).limit(limit)
    if before:
        statement = statement.where(searches.c.key < before)
    return list(connection.execute(statement))


def keys_of(connection: Connection, ids: Collection[str]) -> list[int]:
    """Raises NotFound for an id that is not there."""
    statement = select(searches.c.id, searches.c.key).where(searches.c.id.in_(ids))
    found = {row.id: row.key for row in connection.execute(statement)}
    if missing := sorted(set(ids) - set(found)):
        raise NotFound(f"there is no search {missing[0]!r}")
    return list(found.values())


def trial_records(
    connection: Connection, conditions: Iterable[Condition], limit: int | None = None
) -> list[TrialRecord]:
    """The trials for which all conditions hold, by search and number. With a limit they must be
    conditions that leave trials of one search, and a trial that cannot be read raises
    InternalError; without one it is left out."""
    rows, values = _trials(connection, list(conditions), limit)

    def record(row: Row[Any]) -> TrialRecord:
        measured = values[row.search_key, row.number]
        return readable(f"trial {row.search_id}/{row.number}", lambda: _trial(row, measured))

    return _those(rows, record) if limit is None else [record(row) for row in rows]


def _trial(row: Row[Any], values: Mapping[str, float]) -> TrialRecord:
    return TrialRecord(
        search_id=row.search_id,
        number=row.number,
        state=TrialState(row.state),
        attempt=row.attempt,
        rung=row.rung,
        fingerprint=row.fingerprint,
        architecture=architecture(row.spec),
        values=values,
        details=json.loads(row.details),
        error=row.error,
        created=row.created,
        updated=row.updated,
    )


def trials_of(connection: Connection, key: int, *conditions: Condition) -> list[Trial]:
    """The same as they were appended, for one search. Raises InternalError."""
    rows, values = _trials(connection, [trials.c.search_key == key, *conditions], None)

    def trial(row: Row[Any]) -> Trial:
        return Trial(
            number=row.number,
            params=json.loads(row.params),
            architecture=architecture(row.spec),
            state=TrialState(row.state),
            attempt=row.attempt,
            rung=row.rung,
            values=values[key, row.number],
            details=json.loads(row.details),
            error=row.error,
        )

    return [readable(f"trial {row.search_id}/{row.number}", partial(trial, row)) for row in rows]


def transitions(connection: Connection, key: int) -> list[Trial]:
    """What was appended to one search, in that order; details are those of the newest of a number.
    Raises InternalError."""
    newest = {trial.number: trial for trial in trials_of(connection, key)}
    e = events.c
    ours = (e.search_key == key) & e.number.is_not(None)
    rows = connection.execute(select(events).where(ours).order_by(e.sequence)).all()
    last = {row.number: row.sequence for row in rows}

    def trial(row: Row[Any]) -> Trial:
        found = newest[row.number]
        if row.sequence == last[row.number]:
            return found
        new = {"rung": 0, "details": {}} | json.loads(row.payload)
        return replace(found, **new | {"state": TrialState(new["state"])})

    return [readable(f"event {row.sequence}", partial(trial, row)) for row in rows]


def measured_before(
    connection: Connection, fingerprint: str, but: str
) -> list[tuple[str, SearchSpec, Trial]]:
    """Trials of other searches than `but` that have succeeded with this architecture: their names,
    the specs of their searches and they themselves, the newest first."""
    t = trials.c
    of_others = (t.fingerprint == fingerprint) & (t.state == TrialState.SUCCEEDED.value)
    statement = (
        select(t.search_key, t.number, searches.c.id, searches.c.spec)
        .select_from(trials.join(searches))
        .where(of_others, searches.c.id != but)
        .order_by(t.search_key.desc())
        .limit(ANSWERS)
    )
    found = []
    for row in connection.execute(statement).all():
        name = f"searches/{row.id}/trials/{row.number}"
        try:
            (trial,) = trials_of(connection, row.search_key, t.number == row.number)
            found.append((name, SearchSpec.from_json(row.spec), trial))
        except (InternalError, ValueError) as error:
            log.warning("left out: %s: %s", name, error)
    return found


def event_records(connection: Connection, row: Row[Any], after: int, limit: int) -> list[Event]:
    """The events of the search `row` that follow number `after`, at most `limit`."""
    joined = events.outerjoin(
        trials,
        (trials.c.search_key == events.c.search_key) & (trials.c.number == events.c.number),
    ).outerjoin(architectures)
    statement = (
        select(events, trials.c.fingerprint, trials.c.created, architectures.c.spec)
        .select_from(joined)
        .where(events.c.search_key == row.key, events.c.sequence > after)
        .order_by(events.c.sequence)
        .limit(max(limit, 0))
    )
    return [
        readable(f"event {row.id}/{found.sequence}", partial(_event, row.id, found))
        for found in connection.execute(statement)
    ]


def _event(search_id: str, row: Row[Any]) -> Event:
    new = json.loads(row.payload)
    if row.number is None:
        state = SearchState(new["state"])
        return Event(row.sequence, row.time, state=state, error=new["error"])
    trial = TrialRecord(
        search_id=search_id,
        number=row.number,
        state=TrialState(new["state"]),
        attempt=new["attempt"],
        rung=new.get("rung", 0),
        fingerprint=row.fingerprint,
        architecture=architecture(row.spec),
        values=new["values"],
        details={},
        error=new["error"],
        created=row.created,
        updated=row.time,
    )
    return Event(row.sequence, row.time, trial=trial)


def _trials(
    connection: Connection, conditions: list[Condition], limit: int | None
) -> tuple[Sequence[Row[Any]], Mapping[tuple[int, int], dict[str, float]]]:
    wanted = select(trials, searches.c.id.label("search_id"), architectures.c.spec)
    wanted = _joined(wanted).join(architectures).where(*conditions)
    by_number = wanted.order_by(trials.c.search_key, trials.c.number).limit(limit)
    rows = connection.execute(by_number).all()
    if limit is not None and rows:
        conditions = [*conditions, trials.c.number <= rows[-1].number]
    measured = _joined(select(metrics).select_from(metrics.join(trials))).where(*conditions)
    values: dict[tuple[int, int], dict[str, float]] = defaultdict(dict)
    for key, number, metric, value in connection.execute(measured):
        values[key, number][metric] = value
    return rows, values


def _joined(statement: Select[Any]) -> Select[Any]:
    return statement.join(searches, searches.c.key == trials.c.search_key)
