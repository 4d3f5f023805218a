"""What is written: each function is a part of the caller's transaction, which has locked the search
(`search_row(..., lock=True)`), and leaves the events of what it changed. Next: `trial_log.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from ...search import SearchSpec, Trial, TrialState, machine_of
from ..records import SearchRecord, SearchState
from .artifacts import delete_artifacts
from .engine import insert_if_new
from .requests import CREATE, record_request
from .schema import architectures, events, front, metrics, searches, trials

Change = tuple[int | None, dict[str, Any]]  # number of a trial or None, and what is new
COUNTS = tuple(state.value.lower() for state in TrialState)  # columns of a search

# what every step of a trial takes is put together once
_GROWN = (
    update(searches)
    .where(searches.c.key == bindparam("of_search"))
    .values(
        last_sequence=searches.c.last_sequence + bindparam("more"),
        updated=bindparam("now", type_=searches.c.updated.type),
        **{name: searches.c[name] + bindparam(f"more_{name}") for name in COUNTS},
    )
    .returning(searches.c.last_sequence)
)
_ADD_EVENTS, _ADD_TRIAL, _ADD_METRICS = insert(events), insert(trials), insert(metrics)
_MOVE_TRIAL = update(trials).where(
    trials.c.search_key == bindparam("of_search"), trials.c.number == bindparam("of_number")
)
_FORGET = delete(metrics).where(
    metrics.c.search_key == bindparam("of_search"), metrics.c.number == bindparam("of_number")
)


def add_events(
    connection: Connection,
    key: int,
    now: datetime,
    changes: Sequence[Change],
    moves: Iterable[tuple[str, str]] = (),
) -> None:
    """Numbers the changes from where the search's events end; its update time moves too, and its
    counts by `moves`: a trial's state before (empty if it is new) and after."""
    by: Counter[str] = Counter()
    for before, after in moves:
        by[after.lower()] += 1
        by[before.lower()] -= 1
    grown: dict[str, Any] = {f"more_{name}": by[name] for name in COUNTS}
    grown |= {"of_search": key, "more": len(changes), "now": now}
    last = connection.execute(_GROWN, grown).scalar_one()
    rows = [
        {
            "search_key": key,
            "sequence": sequence,
            "time": now,
            "number": number,
            "payload": json.dumps(payload, sort_keys=True),
        }
        for sequence, (number, payload) in enumerate(changes, last - len(changes) + 1)
    ]
    connection.execute(_ADD_EVENTS, rows)


def set_state(
    connection: Connection, key: int, now: datetime, state: SearchState, error: str = ""
) -> None:
    """The search goes to `state`. Where that is not RUNNING, the lease ends; where it is final,
    what was still open is pruned first, so that the change of state is the last event."""
    if state.final:
        ended = "the search was cancelled" if state is SearchState.CANCELLED else "the search ended"
        _prune_open(connection, key, now, ended)
    new: dict[str, Any] = {"state": state.value, "error": error}
    if state is not SearchState.RUNNING:
        new |= {"owner": "", "lease_expires": None}
    connection.execute(update(searches).where(searches.c.key == key).values(new))
    add_events(connection, key, now, [(None, {"state": state.value, "error": error})])


def update_search(
    connection: Connection,
    record: SearchRecord,
    key: int,
    now: datetime,
    changes: Mapping[str, Any],
) -> None:
    """Raises SpecError for a value that cannot be."""
    own = {name: changes[name] for name in ("display_name", "priority") if name in changes}
    spent = {name: value for name, value in changes.items() if name not in own}
    if spent:
        own["spec"] = SearchSpec.from_dict(record.spec.to_dict() | spent).to_json()
    own |= {"revision": record.revision + 1, "updated": now}
    connection.execute(update(searches).where(searches.c.key == key).values(own))
    new = {"state": record.state.value, "error": record.error, "changed": sorted(changes)}
    add_events(connection, key, now, [(None, new)])


def delete_search(connection: Connection, row: Row[Any], now: datetime) -> None:
    """With all that is its own; architectures stay. The request that made it is remembered."""
    record_request(connection, row.request_id, CREATE, row.asked, row.id, now)
    delete_artifacts(connection, row.key)
    for table in (front, events, metrics, trials):
        connection.execute(delete(table).where(table.c.search_key == row.key))
    connection.execute(delete(searches).where(searches.c.key == row.key))


def save_trial(
    connection: Connection, key: int, now: datetime, trial: Trial, old: Trial | None
) -> Change:
    """Makes `trial` the newest state of its number, after `old`. The caller has saved its
    architecture, and passes what comes back to `add_events`."""
    new = {
        "state": trial.state.value,
        "attempt": trial.attempt,
        "rung": trial.rung,
        "error": trial.error,
        "machine": machine_of(trial),
        "details": json.dumps(dict(trial.details)),
        "updated": now,
    }
    values = {name: float(value) for name, value in trial.values.items()}
    place = {"search_key": key, "number": trial.number}
    if old is None:
        fixed = {"params": json.dumps(dict(trial.params)), "created": now}
        fixed["fingerprint"] = trial.architecture.fingerprint()
        connection.execute(_ADD_TRIAL, place | fixed | new)
    else:
        one = {"of_search": key, "of_number": trial.number}
        connection.execute(_MOVE_TRIAL, new | one)
        if old.values:
            connection.execute(_FORGET, one)
    rows = [place | {"metric": name, "value": value} for name, value in values.items()]
    if rows:
        connection.execute(_ADD_METRICS, rows)
    payload = {name: new[name] for name in ("state", "attempt", "rung", "error")}
    return trial.number, payload | {"values": values}


def save_architectures(connection: Connection, trials: Iterable[Trial]) -> None:
    """In the order of their fingerprints: two searches that save the same ones must not wait for
    each other."""
    known = {trial.architecture.fingerprint(): trial.architecture for trial in trials}
    for fingerprint in sorted(known):
        row = {"fingerprint": fingerprint, "spec": known[fingerprint].to_json()}
        insert_if_new(connection, architectures, "fingerprint", row)


def _prune_open(connection: Connection, key: int, now: datetime, why: str) -> None:
    """Without reading more of the trials than is needed: a search must end even if one of them
    cannot be read."""
    t = trials.c
    still_open = (t.search_key == key) & t.state.in_(["PENDING", "RUNNING"])
    rows = connection.execute(
        select(t.number, t.state, t.attempt, t.rung).where(still_open).order_by(t.number)
    ).all()
    if not rows:
        return
    m = metrics.c
    values: dict[int, dict[str, float]] = {row.number: {} for row in rows}
    measured = (
        select(m.number, m.metric, m.value)
        .select_from(metrics.join(trials))
        .where(still_open, m.search_key == key)
    )
    for number, metric, value in connection.execute(measured):
        values[number][metric] = value
    new = {"state": TrialState.PRUNED.value, "error": why}
    connection.execute(update(trials).where(still_open).values(new | {"updated": now}))
    changes: list[Change] = [
        (row.number, new | {"attempt": row.attempt, "rung": row.rung, "values": values[row.number]})
        for row in rows
    ]
    moves = [(row.state, TrialState.PRUNED.value) for row in rows]
    add_events(connection, key, now, changes, moves)
