"""Trials from the best to the worst for several metrics: Pareto rank, then hypervolume share.

The order of SMS-EMOA ("SMS-EMOA: Multiobjective selection based on dominated hypervolume", Beume et
al., 2007). Ranks by efficient non-dominated sort (Zhang et al., 2015): in the order of their first
coordinate, whoever dominates a point stands before it; the fronts that do are found by bisection,
and with up to three metrics a front answers in O(log n) itself. It must not know where trials come
from. Next: `hypervolume.py`; `run/ladder.py` and `propose/history.py` use it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from .hypervolume import contributions
from .objective import Direction, Metric

EDGE = 1.1  # the reference of the contributions, where the worst of a rank is at 1
# the largest rank whose contributions are exact, by the number of metrics; beyond three their time
# grows with the power of it
EXACT = {4: 64, 5: 32, 6: 20}
EXACT_BEYOND = 12

Costs = tuple[float, ...]


class Valued(Protocol):
    """A trial, as far as ranks go."""

    @property
    def values(self) -> Mapping[str, float]: ...


class Numbered(Valued, Protocol):
    """A trial, as far as its place goes."""

    @property
    def number(self) -> int: ...


N = TypeVar("N", bound=Numbered)


def ranks(trials: Sequence[Valued], metrics: Sequence[Metric]) -> list[int]:
    """The Pareto rank of each, 0 where nothing dominates it: one more than the highest rank of
    those that do. Equal values, equal rank; a trial without one of the values is behind all."""
    points = [costs(trial, metrics) for trial in trials]
    found = _ranks(points)
    last = max(found.values(), default=-1) + 1
    return [last if point is None else found[point] for point in points]


def order(trials: Sequence[N], metrics: Sequence[Metric]) -> list[N]:
    """The best first: by rank; within a rank by hypervolume contribution, its worst values at 1,
    its best at 0 and the reference at 1.1; then by number.

    With more than three metrics the contributions within a large rank (of more than 64 for four, of
    `EXACT` for more) are crowding distances (NSGA-II, Deb et al., 2002): exact ones take minutes.
    """
    places = ranks(trials, metrics)
    by_rank: dict[int, list[N]] = defaultdict(list)
    for trial, rank in zip(trials, places, strict=True):
        by_rank[rank].append(trial)
    ordered: list[N] = []
    for rank in sorted(by_rank):
        equal = by_rank[rank]
        points = [point for t in equal if (point := costs(t, metrics))]
        shares = _shares(points) if points else [0.0] * len(equal)
        placed = zip(equal, shares, strict=True)
        ordered += [t for t, _ in sorted(placed, key=lambda pair: (-pair[1], pair[0].number))]
    return ordered


def costs(trial: Valued, metrics: Sequence[Metric]) -> Costs | None:
    """The values, lower being better; None if one is missing."""
    if any(metric.name not in trial.values for metric in metrics):
        return None
    signs = (-1.0 if metric.direction is Direction.MAXIMIZE else 1.0 for metric in metrics)
    return tuple(s * trial.values[m.name] for s, m in zip(signs, metrics, strict=True))


def normalised(points: Sequence[Costs]) -> list[Costs]:
    """Each coordinate from 0, the best of these points (the ideal), to 1, the worst (the nadir);
    0 where all are the same."""
    columns = list(zip(*points, strict=True))
    low, high = [min(c) for c in columns], [max(c) for c in columns]
    return [
        tuple((x - a) / (b - a or 1.0) for x, a, b in zip(point, low, high, strict=True))
        for point in points
    ]


def _ranks(points: Sequence[Costs | None]) -> dict[Costs, int]:
    fronts: list[_Stairs | _Rows] = []
    found: dict[Costs, int] = {}
    for point in sorted({p for p in points if p is not None}):
        low, high = 0, len(fronts)
        while low < high:
            middle = (low + high) // 2
            if fronts[middle].dominates(point):
                low = middle + 1
            else:
                high = middle
        if low == len(fronts):
            fronts.append(_Stairs() if len(point) <= 3 else _Rows())
        fronts[low].add(point)
        found[point] = low
    return found


class _Stairs:
    """A front of up to three coordinates, the first of which rises from point to point: who is
    not beaten in the other two."""

    def __init__(self) -> None:
        self._ys: list[float] = []
        self._zs: list[float] = []  # falling where y rises

    def dominates(self, point: Costs) -> bool:
        y, z = (*point[1:], 0.0, 0.0)[:2]
        at = bisect_right(self._ys, y) - 1
        return at >= 0 and self._zs[at] <= z

    def add(self, point: Costs) -> None:
        y, z = (*point[1:], 0.0, 0.0)[:2]
        first = bisect_right(self._ys, y)
        last = first
        while last < len(self._zs) and self._zs[last] >= z:
            last += 1
        if first and self._ys[first - 1] == y:
            first -= 1  # the same y, and a higher z, or it would be dominated
        self._ys[first:last], self._zs[first:last] = [y], [z]


class _Rows:
    """A front of any number of coordinates, as rows of a table that doubles where it is full."""

    def __init__(self) -> None:
        self._rows = np.empty((0, 0))
        self._count = 0

    def dominates(self, point: Costs) -> bool:
        return bool((self._rows[: self._count] <= point).all(1).any())

    def add(self, point: Costs) -> None:
        if self._count == len(self._rows):
            more = np.empty((max(16, self._count), len(point)))
            self._rows = np.vstack([self._rows.reshape(-1, len(point)), more])
        self._rows[self._count] = point
        self._count += 1


def _shares(points: Sequence[Costs]) -> list[float]:
    """What each point of a rank is worth beside the others."""
    unit = normalised(points)
    if len(unit[0]) <= 3 or len(unit) <= EXACT.get(len(unit[0]), EXACT_BEYOND):
        return contributions(unit, [EDGE] * len(unit[0]))
    return _crowding(unit)


def _crowding(points: Sequence[Costs]) -> list[float]:
    """Per point the sum over the coordinates of the distance between its two neighbours; without
    end at the ends. A coordinate that is the same for all has none."""
    found = [0.0] * len(points)
    for column in zip(*points, strict=True):
        if min(column) == max(column):
            continue
        by = sorted(range(len(points)), key=lambda at: column[at])
        for at in (by[0], by[-1]):
            found[at] = float("inf")
        for before, at, after in zip(by, by[1:], by[2:], strict=False):
            found[at] += column[after] - column[before]
    return found
