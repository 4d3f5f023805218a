"""`Span`: the box from the best to the worst values of some trials, in which hypervolumes compare.

It must not know where trials come from. Next: `hypervolume.py`, which measures in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .front import Measured
from .hypervolume import hypervolume
from .objective import Direction, Metric

EDGE = 1.1  # a tenth beyond the worst value at 1: or the ends of a front would count for nothing


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
        found = [self._place(point) for t in trials if (point := costs(t.values, self.metrics))]
        if not found:
            return 0.0
        sides = len(self.metrics)
        return hypervolume(found, [EDGE] * sides) / EDGE**sides

    def _place(self, point: Sequence[float]) -> list[float]:
        """Each side from 0, the best, to 1, the worst; a side without length counts as won."""
        sides = zip(point, self.best, self.worst, strict=True)
        return [min(max((x - low) / (high - low or 1.0), 0.0), EDGE) for x, low, high in sides]


def costs(values: Mapping[str, float], metrics: Sequence[Metric]) -> tuple[float, ...]:
    """The values, lower being better; nothing if one is missing."""
    if any(metric.name not in values for metric in metrics):
        return ()
    signs = (-1.0 if metric.direction is Direction.MAXIMIZE else 1.0 for metric in metrics)
    return tuple(sign * values[m.name] for sign, m in zip(signs, metrics, strict=True))
