"""Numbers of many trials, to be compared: read column by column, without what is not compared.

Next: `../rpc/best.py`, which compares them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, and_, select

from ...search import METRICS, Direction, Metric, SearchSpec, TrialState
from ..errors import NotAllowed
from .queries import IN_ONE, keys_of
from .schema import front, metrics, searches, trials

Bound = tuple[str, float | None, float | None]  # metric, at least, at most


@dataclass(frozen=True)
class Scope:
    """Which trials: of one search, of searches of a space or for a task, by one machine. Empty: of
    all."""

    search: str = ""
    space: str = ""
    task: str = ""
    machine: str = ""


@dataclass(frozen=True)
class Place:
    """Where a trial is, and what it is."""

    search_key: int
    number: int
    fingerprint: str
    machine: str
    task: str


@dataclass(frozen=True)
class Table:
    """`places` [N], and what was measured there, `values` [N, M], for `metrics` [M]. They were
    chosen from those that were `considered`, which have these metrics and may break a bound."""

    metrics: tuple[Metric, ...]
    places: tuple[Place, ...]
    considered: tuple[Place, ...] = field(repr=False)
    values: NDArray[np.float64] = field(repr=False)

    @cached_property
    def costs(self) -> NDArray[np.float64]:
        """[N, M]: the lower, the better."""
        signs = [-1.0 if m.direction is Direction.MAXIMIZE else 1.0 for m in self.metrics]
        signed: NDArray[np.float64] = self.values * np.array(signs)
        return signed

    def rows(self, which: Sequence[int]) -> list[Place]:
        return [self.places[at] for at in which]


def measured(
    connection: Connection, scope: Scope, compared: Sequence[Metric], bounds: Sequence[Bound]
) -> Table:
    """Trials that succeeded, are within all bounds and have every metric. Raises NotFound."""
    places = {(p.search_key, p.number): p for p in _places(connection, scope)}
    keys = sorted({key for key, _ in places})
    columns: list[Mapping[tuple[int, int], float]] = []
    for metric in compared:
        columns.append(dict(_column(connection, keys, metric.name)))
    considered = [at for at in places if all(at in column for column in columns)]
    kept = considered
    for name, low, high in bounds:
        within = {place for place, _ in _column(connection, keys, name, low, high)}
        kept = [at for at in kept if at in within]
    values = np.array([[column[at] for column in columns] for at in kept], dtype=np.float64)
    shaped = values.reshape(len(kept), len(compared))
    return Table(
        tuple(compared),
        tuple(places[at] for at in kept),
        tuple(places[at] for at in considered),
        shaped,
    )


def _places(connection: Connection, scope: Scope) -> Iterator[Place]:
    t, s = trials.c, searches.c
    statement = (
        select(t.search_key, t.number, t.fingerprint, t.machine, s.task)
        .select_from(trials.join(searches))
        .where(t.state == TrialState.SUCCEEDED.value)
        .order_by(t.search_key, t.number)
    )
    if scope.search:
        statement = statement.where(t.search_key == keys_of(connection, [scope.search])[0])
    for column, wanted in (
        (s.space, scope.space),
        (s.task, scope.task),
        (t.machine, scope.machine),
    ):
        if wanted:
            statement = statement.where(column == wanted)
    for row in connection.execute(statement):
        yield Place(*row)


def _column(
    connection: Connection,
    keys: Sequence[int],
    metric: str,
    low: float | None = None,
    high: float | None = None,
) -> Iterator[tuple[tuple[int, int], float]]:
    m = metrics.c
    for at in range(0, len(keys), IN_ONE):
        some = m.search_key.in_(keys[at : at + IN_ONE])
        statement = select(m.search_key, m.number, m.value).where(some, m.metric == metric)
        if low is not None:
            statement = statement.where(m.value >= low)
        if high is not None:
            statement = statement.where(m.value <= high)
        for key, number, value in connection.execute(statement):
            yield (key, number), value


def kept_front(
    connection: Connection, search: Row[Any], spec: SearchSpec
) -> tuple[list[Place], int]:
    """The front that is kept of a search, in the order of its objectives, and how many trials have
    succeeded. Raises NotAllowed if there is one for each of several machines."""
    t, f = trials.c, front.c
    statement = select(t.search_key, t.number, t.fingerprint, t.machine, f.machine.label("of"))
    statement = statement.select_from(front.join(trials)).where(f.search_key == search.key)
    for name in spec.objectives:
        value = metrics.alias()
        at = and_(
            value.c.search_key == f.search_key, value.c.metric == name, value.c.number == f.number
        )
        statement = statement.join(value, at)
        up = METRICS[name].direction is Direction.MAXIMIZE
        statement = statement.order_by(value.c.value.desc() if up else value.c.value)
    rows = connection.execute(statement.order_by(f.number)).all()
    check_one_machine(row.of for row in rows)
    return [Place(*row[:4], search.task) for row in rows], search.succeeded


def check_one_machine(machines: Iterable[str]) -> None:
    """Raises NotAllowed if what several have measured would be compared."""
    known = sorted(set(machines))
    if len(known) > 1:
        which = f"one of {', '.join(known)}"
        raise NotAllowed(f"machine: latencies of different machines do not compare; {which}")


def undominated(costs: NDArray[np.float64]) -> list[int]:
    """Rows of `costs` [N, M] that no other dominates, in cost order; equal ones all stay.

    The first in cost order is on the front. What it dominates goes at once, and so on: N times the
    length of the front, in compiled loops.
    """
    order = np.lexsort(costs.T[::-1]) if len(costs) else np.empty(0, dtype=int)
    front: list[int] = []
    while len(order):
        first = costs[order[0]]
        left = costs[order]
        worse = np.all(left >= first, axis=1) & np.any(left > first, axis=1)
        equal = np.all(left == first, axis=1)
        front += order[equal].tolist()
        order = order[~worse & ~equal]
    return front


def by_weights(costs: NDArray[np.float64], weights: Sequence[float]) -> list[int]:
    """Rows of `costs` [N, M], the best weighted sum first, each column scaled to 0..1."""
    if not len(costs):
        return []
    low, high = costs.min(axis=0), costs.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    sums = ((costs - low) / span) @ np.array(weights)
    found: list[Any] = np.argsort(sums, kind="stable").tolist()
    return found
