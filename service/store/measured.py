"""Numbers of many trials, to be compared: column by column, without what is not compared.

Next: `kept.py`, where the columns come from; `../rpc/best.py`, which compares them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, and_, select

from ...search import METRICS, UNNAMED, Direction, Metric, SearchSpec
from ..errors import NotAllowed
from .kept import Columns, Kept
from .queries import search_row, visible
from .schema import front, metrics, searches, trials

Bound = tuple[str, float | None, float | None]  # metric, at least, at most


@dataclass(frozen=True)
class Scope:
    """Which trials: of one search, of searches of a space or for a task, by one machine (`UNNAMED`:
    those that tell none). Empty: of all."""

    search: str = ""
    space: str = ""
    task: str = ""
    machine: str = ""


@dataclass(frozen=True)
class Place:
    """Where a trial is, and what it is."""

    search_id: str
    search_key: int
    number: int
    fingerprint: str
    machine: str
    task: str


@dataclass(frozen=True)
class _Part:
    """Of one search: which of what is kept was chosen."""

    id: str
    key: int
    task: str
    kept: Kept
    chosen: NDArray[np.int64]

    def place(self, at: int) -> Place:
        kept = self.kept
        return Place(
            self.id,
            self.key,
            int(kept.numbers[at]),
            kept.fingerprints[at].decode(),
            kept.names[kept.machines[at]],
            self.task,
        )


@dataclass(frozen=True)
class Table:
    """What trials [N] have measured, `values` [N, M], for `metrics` [M]. They were chosen from
    those that have these metrics and may break a bound, which are for `tasks` and by `machines`."""

    metrics: tuple[Metric, ...]
    values: NDArray[np.float64] = field(repr=False)
    tasks: frozenset[str]
    machines: frozenset[str]
    parts: tuple[_Part, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def costs(self) -> NDArray[np.float64]:
        """[N, M]: the lower, the better."""
        signs = [-1.0 if m.direction is Direction.MAXIMIZE else 1.0 for m in self.metrics]
        signed: NDArray[np.float64] = self.values * np.array(signs)
        return signed

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum([len(part.chosen) for part in self.parts], dtype=np.int64)

    def rows(self, which: Iterable[int]) -> Iterator[Place]:
        """Where they are, as they are asked for."""
        for at in which:
            part = int(np.searchsorted(self._ends, at, side="right"))
            begin = int(self._ends[part - 1]) if part else 0
            yield self.parts[part].place(int(self.parts[part].chosen[at - begin]))

    @property
    def places(self) -> tuple[Place, ...]:
        """Of all rows."""
        return tuple(self.rows(range(len(self))))


def measured(
    connection: Connection,
    columns: Columns,
    scope: Scope,
    compared: Sequence[Metric],
    bounds: Sequence[Bound],
) -> Table:
    """Trials that succeeded, are within all bounds and have every metric. Raises NotFound."""
    names = [metric.name for metric in compared]
    wanted = [*names, *(name for name, _, _ in bounds)]
    parts: list[_Part] = []
    tasks, machines = set[str](), set[str]()
    values = [np.empty((len(names), 0))]  # a column is in one piece
    for search in _searches(connection, scope):
        kept = columns.of(connection, search, wanted)
        have = np.ones(len(kept.numbers), dtype=bool)
        if scope.machine:
            name = "" if scope.machine == UNNAMED else scope.machine
            known = name in kept.names
            have &= kept.machines == (kept.names.index(name) if known else -1)
        for name in names:
            have &= ~np.isnan(kept.values[name])
        if not have.any():
            continue
        tasks.add(search.task)
        counts = np.bincount(kept.machines[have], minlength=len(kept.names))
        named = zip(kept.names, counts, strict=True)
        machines.update(name or UNNAMED for name, count in named if count)
        for name, low, high in bounds:
            value = kept.values[name]
            have &= (value >= (-np.inf if low is None else low)) & (
                value <= (np.inf if high is None else high)
            )
        chosen = np.flatnonzero(have)
        parts.append(_Part(search.id, search.key, search.task, kept, chosen))
        values.append(np.stack([kept.values[name][chosen] for name in names]))
    return Table(
        tuple(compared),
        np.concatenate(values, axis=1).T,
        frozenset(tasks),
        frozenset(machines),
        tuple(parts),
    )


def _searches(connection: Connection, scope: Scope) -> Sequence[Any]:
    s = searches.c
    statement = select(s.key, s.id, s.task, s.last_sequence).order_by(s.key)
    statement = statement.where(*visible(connection))
    if scope.search:
        statement = statement.where(s.key == search_row(connection, scope.search).key)
    for column, wanted in ((s.space, scope.space), (s.task, scope.task)):
        if wanted:
            statement = statement.where(column == wanted)
    return connection.execute(statement).all()


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
    return [Place(search.id, *row[:4], search.task) for row in rows], search.succeeded


def check_one_machine(machines: Iterable[str]) -> None:
    """Raises NotAllowed if what several have measured would be compared."""
    known = sorted({machine or UNNAMED for machine in machines})
    if len(known) > 1:
        which = f"one of {', '.join(known)}"
        raise NotAllowed(f"machine: latencies of different machines do not compare; {which}")


def undominated(costs: NDArray[np.float64]) -> list[int]:
    """Rows of `costs` [N, M] that no other dominates, in cost order; equal ones all stay.

    What one good row dominates goes first, which is nearly all. Then the first in cost order is on
    the front; what it dominates goes at once, and so on: what is left times the length of the
    front, in compiled loops.
    """
    if not len(costs):
        return []
    good = costs[np.argmin(_scaled(costs).sum(axis=1))]
    left = np.flatnonzero(~_dominated(costs, good))
    order = left[np.lexsort(costs[left].T[::-1])]
    front: list[int] = []
    while len(order):
        first, rest = costs[order[0]], costs[order]
        equal = np.all(rest == first, axis=1)
        front += order[equal].tolist()
        order = order[~_dominated(rest, first) & ~equal]
    return front


def by_weights(
    costs: NDArray[np.float64], weights: Sequence[float], most: int | None = None
) -> list[int]:
    """Rows of `costs` [N, M], the best weighted sum first, each column scaled to 0..1: all, or the
    first `most` and those that are as good as the last of these."""
    if not len(costs):
        return []
    sums = _scaled(costs) @ np.array(weights)
    rows = np.arange(len(sums))
    if most is not None and most < len(sums):
        rows = np.flatnonzero(sums <= np.partition(sums, most - 1)[most - 1])
    found: list[int] = rows[np.argsort(sums[rows], kind="stable")].tolist()
    return found


def _scaled(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each column to 0..1."""
    low, high = costs.min(axis=0), costs.max(axis=0)
    scaled: NDArray[np.float64] = (costs - low) / np.where(high > low, high - low, 1.0)
    return scaled


def _dominated(costs: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows the row `by` dominates; column by column, because there are few."""
    worse, differ = np.ones(len(costs), bool), np.zeros(len(costs), bool)
    for at, cost in enumerate(by):
        worse &= costs[:, at] >= cost
        differ |= costs[:, at] > cost
    return worse & differ
