"""`Columns`: the numbers of trials that have succeeded, kept in memory between two questions.

What has succeeded never changes, so what was read stays right: of a search that has gone on, only
what its newer events tell of is read. The database is asked each time how far a search is. It must
not know what is compared. Next: `measured.py`, which compares.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, select

from ...search import TrialState
from .queries import values_of
from .schema import events, metrics, trials

MOST = 1_000_000  # trials; beyond them the searches that were asked about longest ago are dropped
FINGERPRINT = "S80"


@dataclass
class Kept:
    """Trials of one search [N], by number, as of event `sequence`."""

    sequence: int = 0
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    fingerprints: NDArray[np.bytes_] = field(default_factory=lambda: np.empty(0, FINGERPRINT))
    machines: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    names: list[str] = field(default_factory=list)  # of machines, by number
    values: dict[str, NDArray[np.float64]] = field(default_factory=dict)  # not a number: has none


class Columns:
    """Of one store. Threads share it."""

    def __init__(self, most: int = MOST) -> None:
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._most = most

    def of(self, connection: Connection, search: Row[Any], wanted: Iterable[str]) -> Kept:
        """All that have succeeded as of this transaction, or later, with the wanted metrics;
        `search` has `id`, `key` and `last_sequence`. What comes back does not change."""
        with self._lock:
            before = self._kept.get(search.id, Kept())
            if search.last_sequence < before.sequence:  # this transaction is older than the last
                return _with_columns(connection, search, Kept(), wanted)
            kept = _with_columns(connection, search, before, wanted)
            self._kept[search.id] = kept
            self._kept.move_to_end(search.id)
            self._shrink()
            return kept

    def _shrink(self) -> None:
        while len(self._kept) > 1 and sum(len(k.numbers) for k in self._kept.values()) > self._most:
            self._kept.popitem(last=False)


def _with_columns(
    connection: Connection, search: Row[Any], before: Kept, wanted: Iterable[str]
) -> Kept:
    kept = _renewed(connection, search, before)
    missing = [name for name in wanted if name not in kept.values]
    read = {name: _column(connection, search.key, name, kept.numbers) for name in missing}
    return _with(kept, values=kept.values | read) if read else kept


def _with(kept: Kept, **changes: Any) -> Kept:
    return Kept(**{**vars(kept), **changes})


def _renewed(connection: Connection, search: Row[Any], kept: Kept) -> Kept:
    """With what has succeeded since."""
    if search.last_sequence <= kept.sequence:
        return kept
    t, e = trials.c, events.c
    statement = select(t.number, t.fingerprint, t.machine).where(
        t.search_key == search.key, t.state == TrialState.SUCCEEDED.value
    )
    if kept.sequence:
        newer = select(e.number).where(e.search_key == search.key, e.sequence > kept.sequence)
        statement = statement.where(t.number.in_(newer))
    rows = connection.execute(statement.order_by(t.number)).all()
    if not rows:
        return _with(kept, sequence=search.last_sequence)
    numbers = np.array([row.number for row in rows], np.int64)
    names = list(kept.names)
    codes = {name: at for at, name in enumerate(names)}
    for row in rows:
        if row.machine not in codes:
            codes[row.machine] = len(names)
            names.append(row.machine)
    places = [(search.key, row.number) for row in rows]
    values = values_of(connection, places) if kept.values else {}
    new = {name: np.array([values[at].get(name, np.nan) for at in places]) for name in kept.values}
    fingerprints = np.array([row.fingerprint.encode() for row in rows], FINGERPRINT)
    machines = np.array([codes[row.machine] for row in rows], np.int64)
    grown = Kept(
        search.last_sequence,
        np.concatenate([kept.numbers, numbers]),
        np.concatenate([kept.fingerprints, fingerprints]),
        np.concatenate([kept.machines, machines]),
        names,
        {name: np.concatenate([kept.values[name], more]) for name, more in new.items()},
    )
    # one may end before another that began earlier
    late = len(kept.numbers) and numbers[0] < kept.numbers[-1]
    return _sorted(grown) if late else grown


def _sorted(kept: Kept) -> Kept:
    order = np.argsort(kept.numbers)
    return _with(
        kept,
        numbers=kept.numbers[order],
        fingerprints=kept.fingerprints[order],
        machines=kept.machines[order],
        values={name: column[order] for name, column in kept.values.items()},
    )


def _column(
    connection: Connection, key: int, metric: str, numbers: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The whole of it, at the places of these trials."""
    m = metrics.c
    statement = select(m.number, m.value).where(m.search_key == key, m.metric == metric)
    known = dict(map(tuple, connection.execute(statement)))
    return np.array([known.get(number, np.nan) for number in numbers.tolist()], np.float64)
