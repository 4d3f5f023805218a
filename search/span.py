"""`Span`: the box from the best to the worst values of some trials, in which hypervolumes compare.

Up to `EXACT` objectives a share is exact. Of more it is estimated, since exact volumes take
exponential time: `Span.estimated` says so, and so must whoever shows it.
It must not know where trials come from. Next: `hypervolume.py` and `sampled.py`, which measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .front import Measured, joins
from .hypervolume import hypervolume
from .objective import Direction, Metric
from .sampled import Sampled, mask

EDGE = 1.1  # a tenth beyond the worst value at 1: or the ends of a front would count for nothing
EXACT = 3  # objectives


@dataclass(frozen=True)
class Span:
    """Per metric the best and the worst value as costs (lower is better). A share of the box is
    a fair measure between trials that are all in it; a value outside counts as at its edge."""

    metrics: tuple[Metric, ...]
    best: tuple[float, ...]
    worst: tuple[float, ...]

    @classmethod
    def of(cls, trials: Iterable[Measured], metrics: Sequence[Metric]) -> Span:
        """Of the trials that have all the metrics; without any, the empty box."""
        found = [point for trial in trials if (point := costs(trial.values, metrics))]
        columns = list(zip(*found, strict=True)) or [(0.0,)] * len(metrics)
        return cls(tuple(metrics), tuple(map(min, columns)), tuple(map(max, columns)))

    def widened(self, trial: Measured) -> Span:
        """The box that holds this trial too, if it has all the metrics."""
        point = costs(trial.values, self.metrics) or self.best
        best, worst = map(min, self.best, point), map(max, self.worst, point)
        return Span(self.metrics, tuple(best), tuple(worst))

    def share(self, trials: Iterable[Measured]) -> float:
        """What part of the box the trials dominate, from 0 to 1."""
        if self.estimated:
            growing = Growing(self)
            for trial in trials:
                growing.add(trial)
            return growing.share
        found = [place for trial in trials if (place := self.place(trial))]
        if not found:
            return 0.0
        sides = len(self.metrics)
        return hypervolume(found, [EDGE] * sides) / EDGE**sides

    @property
    def estimated(self) -> bool:
        """Whether shares of it are estimates."""
        return is_estimated(self.metrics)

    def place(self, trial: Measured) -> list[float]:
        """Where in the box it is; nowhere if it lacks a metric."""
        point = costs(trial.values, self.metrics)
        return self._place(point) if point else []

    def unit_place(self, trial: Measured) -> list[float]:
        """The same with the whole box from 0 to 1."""
        return [x / EDGE for x in self.place(trial)]

    def _place(self, point: Sequence[float]) -> list[float]:
        """Each side from 0, the best, to 1, the worst; a side without length counts as won."""
        sides = zip(point, self.best, self.worst, strict=True)
        return [min(max((x - low) / (high - low or 1.0), 0.0), EDGE) for x, low, high in sides]


class Growing:
    """The share of a box that trials dominate as they come, one after the other."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._front: list[Measured] = []
        self._sampled = Sampled(len(span.metrics)) if span.estimated else None
        self.share = 0.0

    def add(self, trial: Measured) -> float:
        """The share, this one counted too."""
        if self._sampled is not None:
            if place := self._span.unit_place(trial):
                self.share = self._sampled.add(place)
        elif joins(trial, self._front, self._span.metrics):
            self.share = self._span.share(self._front)
        return self.share


def in_orders(
    span: Span, trials: Sequence[Measured], orders: Iterable[Sequence[int]]
) -> list[list[float]]:
    """How the share grows in each of the `orders`, which are of places in `trials`; a place beyond
    the last is one that counts for nothing."""
    masks = []
    if span.estimated:
        empty = mask([2.0] * len(span.metrics))
        for trial in trials:
            place = span.unit_place(trial)
            masks.append(mask(place) if place else empty)
    made = []
    for order in orders:
        growing, share = Growing(span), 0.0
        covered = empty.copy() if span.estimated else None
        column = []
        for at in order:
            if at < len(trials):
                if covered is None:
                    share = growing.add(trials[at])
                else:
                    covered |= masks[at]
                    share = float(covered.mean())
            column.append(share)
        made.append(column)
    return made


def is_estimated(metrics: Sequence[Metric]) -> bool:
    """Whether shares of a box of these are estimates."""
    return len(metrics) > EXACT


def costs(values: Mapping[str, float], metrics: Sequence[Metric]) -> tuple[float, ...]:
    """The values, lower being better; nothing if one is missing."""
    if any(metric.name not in values for metric in metrics):
        return ()
    signs = (-1.0 if metric.direction is Direction.MAXIMIZE else 1.0 for metric in metrics)
    return tuple(sign * values[m.name] for sign, m in zip(signs, metrics, strict=True))
