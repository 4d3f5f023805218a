"""The share of a box that points dominate, estimated: exact volumes take exponential time.

Monte Carlo: the share of `POINTS` points, drawn once and for all with a fixed seed, that somebody
is below. So equal trials give equal estimates, and an estimate never falls as trials join. Its
standard error is `standard_error`, 0.0035 at most: shares that differ by less than twice that are
the same. It must not know what the points are of. Next: `span.py`, which says when it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

POINTS = 20_000
SEED = 0


def standard_error(share: float) -> float:
    """Of an estimated share, which is a binomial one.

    >>> round(standard_error(0.5), 4)
    0.0035
    """
    return float((max(share * (1.0 - share), 0.0) / POINTS) ** 0.5)


@lru_cache(maxsize=12)
def _drawn(sides: int) -> NDArray[np.float64]:
    """[sides, POINTS], uniform from 0 to 1."""
    import numpy as np

    made = np.random.default_rng(SEED).random((sides, POINTS))
    made.flags.writeable = False
    return made


def dominated(place: Sequence[float], points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the `points` [sides, n] the place is at or below in every coordinate, [n]."""
    found: NDArray[np.bool_] = points[0] >= place[0]
    for x, column in zip(place[1:], points[1:], strict=True):
        found &= column >= x
    return found


def mask(place: Sequence[float]) -> NDArray[np.bool_]:
    """Which of all the points the place dominates, [POINTS]."""
    return dominated(place, _drawn(len(place)))


class Sampled:
    """The share that places of a unit box dominate, one after the other: each is compared with the
    points that are left."""

    def __init__(self, sides: int) -> None:
        self._left = _drawn(sides)

    def add(self, place: Sequence[float]) -> float:
        """The share, this one counted too."""
        found = dominated(place, self._left)
        if found.any():
            self._left = self._left[:, ~found]
        return 1.0 - int(self._left.shape[1]) / POINTS
