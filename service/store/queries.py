"""What is read: rows to the nouns of `records.py`. Every function works in the transaction that it
is given, so what one method returns belongs together. Next: `writes.py`.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, column, select, text

from ...search import ArchSpec, SearchSpec, Trial, TrialState
from ..errors import InternalError, NotFound
from ..records import Event, SearchRecord, SearchState, TrialRecord
from .engine import sees
from .schema import architectures, events, metrics, searches, trials

ANSWERS = 256  # trials of one architecture that are looked at
IN_ONE = 500  # values of an IN
Condition = ColumnElement[bool]
Values = dict[tuple[int, int], dict[str, float]]  # search and number -> metric -> value
Progress = tuple[int, SearchState] | InternalError
T = TypeVar("T")
log = logging.getLogger("formwright.service")
architecture = lru_cache(maxsize=4096)(ArchSpec.from_json)  # frozen, and often asked for
spec_of = lru_cache(maxsize=1024)(SearchSpec.from_json)  # the same


# what is asked most is put together once
_SEARCH = select(searches).where(searches.c.id == bindparam("id"))
_LOCKED = _SEARCH.with_for_update()
_MINE = searches.c.belongs_to == bindparam("owner")
_MY_SEARCH = _SEARCH.where(_MINE)
_MY_LOCKED = _MY_SEARCH.with_for_update()
_TRIALS = (
    select(trials, searches.c.id.label("search_id"), architectures.c.spec)
    .join(searches, searches.c.key == trials.c.search_key)
    .join(architectures)
    .order_by(trials.c.search_key, trials.c.number)
)
_ONE_TRIAL = (
    select(trials.c.search_key)
    .select_from(trials.join(searches))
    .where(searches.c.id == bindparam("search"), trials.c.number == bindparam("of_number"))
)
_MY_TRIAL = _ONE_TRIAL.where(_MINE)
_SOME_TRIALS = _TRIALS.where(
    trials.c.search_key == bindparam("key"),
    trials.c.number.in_(bindparam("numbers", expanding=True)),
)
_SOME_METRICS = select(*(column(c.name, c.type) for c in metrics.c)).where(
    column("search_key") == bindparam("key"),
    column("number").in_(bindparam("numbers", expanding=True)),
)
_METRICS = {
    # SQLite, which has counted nothing, would read all metrics of a search from its largest index
    "sqlite": _SOME_METRICS.select_from(
        text(f"{metrics.name} INDEXED BY ix_{metrics.name}_search_key_number")
    ),
    "postgresql": _SOME_METRICS.select_from(metrics),
}


def search_row(connection: Connection, id: str, lock: bool = False) -> Row[Any]:
    """The row of a search; `lock` keeps other writers away from the search until the transaction
    ends (SQLite does so anyway). Raises NotFound, for one of somebody else too: every way to a
    search by its id leads here, to `key_of_trial` or to `progress_of`."""
    owner, given = sees(connection), {"id": id}
    if owner is None:
        statement = _LOCKED if lock else _SEARCH
    else:
        statement, given["owner"] = (_MY_LOCKED if lock else _MY_SEARCH), owner
    row = connection.execute(statement, given).one_or_none()
    if row is None:
        raise NotFound(f"there is no search {id!r}")
    return row


def search_record(connection: Connection, id: str) -> SearchRecord:
    """Raises NotFound, or InternalError if what is there cannot be read."""
    return search_of(search_row(connection, id))


def visible(connection: Connection) -> list[Condition]:
    """What searches that are seen in this transaction have in common, for a list of them."""
    owner = sees(connection)
    return [] if owner is None else [searches.c.belongs_to == owner]


def progress_of(connection: Connection, ids: Sequence[str]) -> dict[str, Progress]:
    """See `Store.progress_of`."""
    s = searches.c
    found: dict[str, Progress] = {}
    for at in range(0, len(ids), IN_ONE):
        some = select(s.id, s.last_sequence, s.state).where(s.id.in_(ids[at : at + IN_ONE]))
        some = some.where(*visible(connection))
        for row in connection.execute(some):
            found[row.id] = _progress(*row)
    return found


def _progress(id: str, last_sequence: int, state: str) -> Progress:
    try:
        return last_sequence, readable(f"search {id}", lambda: SearchState(state))
    except InternalError as error:
        return error


def search_of(row: Row[Any]) -> SearchRecord:
    """Raises InternalError if it cannot be read."""
    return readable(f"search {row.id}", lambda: _search(row))


def search_records(rows: Sequence[Row[Any]]) -> list[SearchRecord]:
    """Those of the rows that can be read; the log tells of the others."""
    return _those(rows, search_of)


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


def _search(row: Row[Any]) -> SearchRecord:
    counted = {state: getattr(row, state.lower()) for state in TrialState}
    return SearchRecord(
        id=row.id,
        spec=spec_of(row.spec),
        state=SearchState(row.state),
        display_name=row.display_name,
        error=row.error,
        priority=row.priority,
        revision=row.revision,
        owner=row.belongs_to,
        counts={state: count for state, count in counted.items() if count},
        last_sequence=row.last_sequence,
        created=row.created,
        updated=row.updated,
    )


def records_of(connection: Connection, rows: Sequence[Row[Any]]) -> list[TrialRecord]:
    """Of rows of trials, in that order; what cannot be read is left out."""
    values = values_of(connection, [(row.search_key, row.number) for row in rows])
    return _those(rows, lambda row: _record(row, values))


def records_at(
    connection: Connection, places: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], TrialRecord]:
    """Those that are there and can be read."""
    found: dict[tuple[int, int], TrialRecord] = {}
    for key, numbers in _by_search(places).items():
        for at in range(0, len(numbers), IN_ONE):
            some = {"key": key, "numbers": numbers[at : at + IN_ONE]}
            rows = connection.execute(_SOME_TRIALS, some).all()
            for record in records_of(connection, rows):
                found[key, record.number] = record
    return found


def key_of_trial(connection: Connection, search_id: str, number: int) -> int:
    """Of its search. Raises NotFound."""
    owner, given = sees(connection), {"search": search_id, "of_number": number}
    statement = _ONE_TRIAL
    if owner is not None:
        statement, given["owner"] = _MY_TRIAL, owner
    row = connection.execute(statement, given).one_or_none()
    if row is None:
        search_row(connection, search_id)
        raise NotFound(f"the search {search_id} has no trial {number}")
    key: int = row.search_key
    return key


def _record(row: Row[Any], values: Values) -> TrialRecord:
    measured = values[row.search_key, row.number]
    return readable(f"trial {row.search_id}/{row.number}", lambda: _trial(row, measured))


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
        params=json.loads(row.params),
        error=row.error,
        created=row.created,
        updated=row.updated,
    )


def trials_of(connection: Connection, key: int, *conditions: Condition) -> list[Trial]:
    """The same as they were appended, for one search. Raises InternalError."""
    of_search = _TRIALS.where(trials.c.search_key == key, *conditions)
    rows = connection.execute(of_search).all()
    if len(rows) > IN_ONE:  # most of the search, most likely
        values = _told(connection, select(metrics).where(metrics.c.search_key == key))
    else:
        values = values_of(connection, [(key, row.number) for row in rows])

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
        new.pop("front", None)  # what followed from it
        return replace(found, **new | {"state": TrialState(new["state"])})

    return [readable(f"event {row.sequence}", partial(trial, row)) for row in rows]


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
        changed = tuple(new.get("changed", ()))
        return Event(row.sequence, row.time, state=state, error=new["error"], changed=changed)
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
    joined = new.get("front")
    left = None if joined is None else tuple(joined["left"])
    return Event(row.sequence, row.time, trial=trial, left=left)


def values_of(connection: Connection, places: Sequence[tuple[int, int]]) -> Values:
    """What was measured there."""
    values: Values = defaultdict(dict)
    for key, numbers in _by_search(places).items():
        for at in range(0, len(numbers), IN_ONE):
            some = {"key": key, "numbers": numbers[at : at + IN_ONE]}
            values.update(_told(connection, _METRICS[connection.dialect.name], some))
    return values


def _told(
    connection: Connection, statement: Select[Any], given: Mapping[str, Any] | None = None
) -> Values:
    values: Values = defaultdict(dict)
    for key, metric, number, value in connection.execute(statement, given).all():
        values[key, number][metric] = value
    return values


def _by_search(places: Sequence[tuple[int, int]]) -> dict[int, list[int]]:
    numbers: dict[int, list[int]] = defaultdict(list)
    for key, number in places:
        numbers[key].append(number)
    return numbers
