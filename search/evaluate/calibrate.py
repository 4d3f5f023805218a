"""How far a sum of layers is from the whole model, learnt from whole models that were measured.

An affine map by least squares of relative errors, and an interval that is as wide as the errors of
maps fitted without the model in question ("Predictive inference with the jackknife+", Barber et
al., 2021, in its plain form). It must not know what is predicted. Next: `layer_latency.py`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

FEW = 8  # models; with fewer, the sum is taken as it is
COVERAGE = 0.9
LEAST = 0.1  # of the sum is the least that is predicted
DOUBT = 0.3  # the relative error that is assumed while nothing is known

Seen = tuple[float, float]
"""The sum of the layers, and what the whole model measured."""


@dataclass(frozen=True)
class Calibration:
    """`offset + slope * sum` predicts. Of new models a share of `coverage` is at most `error`, a
    part of the prediction, away from it; `typical` is the median error, a part of what was
    measured, None while nothing is known. Both are of maps that had not seen the model."""

    offset: float = 0.0
    slope: float = 1.0
    error: float = DOUBT
    typical: float | None = None
    coverage: float = 0.0
    models: int = 0

    def __call__(self, added: float) -> float:
        return _at(self.offset, self.slope, added)


def calibrated(seen: Sequence[Seen]) -> Calibration:
    """From any number of models, none included.

    >>> calibrated([(p, 1.1 * p + 0.2) for p in range(1, 21)])(10)
    11.2
    """
    if not seen:
        return Calibration()
    fit = _fitted if len(seen) >= FEW else _as_it_is
    offset, slope = fit(seen)
    without = [fit([*seen[:at], *seen[at + 1 :]]) for at in range(len(seen))]
    guesses = [_at(*of, added) for of, (added, _) in zip(without, seen, strict=True)]
    pairs = [(guess, found) for guess, (_, found) in zip(guesses, seen, strict=True)]
    misses = sorted(abs(found - guess) / guess for guess, found in pairs)
    rank = min(math.ceil(COVERAGE * (len(seen) + 1)), len(seen))
    return Calibration(
        round(offset, 12),
        round(slope, 12),
        misses[rank - 1] if len(seen) >= FEW else max(DOUBT, *misses),
        statistics.median(abs(found - guess) / found for guess, found in pairs),
        min(COVERAGE, len(seen) / (len(seen) + 1)),
        len(seen),
    )


def _at(offset: float, slope: float, added: float) -> float:
    """The map, kept above nothing where it is asked for less than it was fitted to."""
    return max(offset + slope * added, LEAST * added)


def _fitted(seen: Sequence[Seen]) -> tuple[float, float]:
    """(a, b) that minimise the sum of `((a + b * added) / found - 1) ** 2`; a is 0 where the map
    would turn the order around, or go below 0."""
    ones = [1 / found for _, found in seen]
    rises = [added / found for added, found in seen]
    aa, bb = sum(one * one for one in ones), sum(rise * rise for rise in rises)
    ab = sum(one * rise for one, rise in zip(ones, rises, strict=True))
    determinant = aa * bb - ab * ab
    if determinant <= 1e-12 * aa * bb:  # all sums are the same
        return 0.0, sum(rises) / bb
    offset = (sum(ones) * bb - sum(rises) * ab) / determinant
    slope = (sum(rises) * aa - sum(ones) * ab) / determinant
    if slope <= 0 or offset + slope * min(added for added, _ in seen) <= 0:
        return 0.0, sum(rises) / bb
    return offset, slope


def _as_it_is(_: Sequence[Seen]) -> tuple[float, float]:
    return 0.0, 1.0
