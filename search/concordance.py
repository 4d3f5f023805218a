"""How many pairs of things two scores order alike, without looking at each pair.

Merge sort counts the pairs that are in another order (Knight, "A computer method for calculating
Kendall's tau with ungrouped data", 1966); pairs among things of about one size are sums and
differences of such counts. Pure. It must not know what is scored. Next: `fidelity.py`.

    x, y   [n] scores, finite
    counts [3]: the pairs ordered alike less those ordered otherwise, those that differ in x, in y
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FEW = 1 << 16  # pairs that are looked at one by one

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def pairs(x: Floats, y: Floats) -> Ints:
    """The counts over all pairs, [3], in O(n log^2 n) steps.

    >>> pairs(np.array([1.0, 2.0, 3.0, 3.0]), np.array([1.0, 3.0, 2.0, 2.0])).tolist()
    [1, 5, 5]
    """
    order = np.lexsort((y, x))
    every = len(x) * (len(x) - 1) // 2
    of_x, of_y = every - _tied(x[:, None]), every - _tied(y[:, None])
    of_both = of_x + of_y - every + _tied(np.stack([x, y], 1))
    return np.array([of_both - 2 * _inversions(y[order]), of_x, of_y])


def pairs_alike(x: Floats, y: Floats, sizes: Floats, ratio: float) -> Ints:
    """The counts over the pairs whose larger size is at most `ratio` times the smaller one, [3], in
    O(n log^3 n) steps. `sizes` [n] are positive."""
    order = np.argsort(sizes, kind="stable")
    x, y, sizes = x[order], y[order], sizes[order]
    # thing i makes a pair with those from i to ends[i], which never fall
    ends = np.searchsorted(sizes, ratio * sizes, side="right")

    def within(low: int, high: int) -> Ints:
        return pairs(x[low:high], y[low:high])

    def across(low: int, mid: int, start: int, end: int) -> Ints:
        """All pairs of one of [low, mid) with one of [start, end)."""
        both = pairs(*(np.concatenate([of[low:mid], of[start:end]]) for of in (x, y)))
        return both - within(low, mid) - within(start, end)

    def stairs(low: int, high: int, start: int, end: int) -> Ints:
        """Of [low, high) with those of [start, end), behind it, that make a pair."""
        low += int(np.searchsorted(ends[low:high], start, side="right"))
        end = min(end, int(ends[high - 1])) if low < high else start
        if start >= end:
            return np.zeros(3, np.int64)
        if (high - low) * (end - start) <= FEW:
            of_one = np.arange(start, end) < ends[low:high, None]
            signs = (np.sign(of[low:high, None] - of[start:end]) * of_one for of in (x, y))
            return _counted(*signs)
        if ends[low] >= end:
            return across(low, high, start, end)
        mid, cut = (low + high) // 2, int(ends[(low + high) // 2])
        whole = across(mid, high, start, cut)
        return whole + stairs(low, mid, start, cut) + stairs(mid, high, cut, end)

    total, low = np.zeros(3, np.int64), 0
    while low < len(x):  # all of [low, high) make pairs, and none of them one beyond `beyond`
        high = int(ends[low])
        beyond = int(ends[high - 1])
        total += within(low, high) + stairs(low, high, high, beyond)
        low = high
    return total


def _counted(of_x: Floats, of_y: Floats) -> Ints:
    """The counts, of the signs of all differences."""
    return np.array([(a * b).sum() for a, b in ((of_x, of_y), (of_x, of_x), (of_y, of_y))], int)


def _tied(rows: NDArray[Any]) -> int:
    """Pairs of equal rows."""
    counts = np.unique(rows, axis=0, return_counts=True)[1].astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())


def _inversions(values: Floats) -> int:
    """Pairs of which the first is larger: halves are merged, all of one length at once."""
    room = 1 << max(len(values) - 1, 0).bit_length()
    values = np.concatenate([values, np.full(room - len(values), np.inf)])
    total, half = 0, 1
    while half < room:
        rows = values.reshape(-1, 2 * half)
        order = rows.argsort(1, kind="stable")
        right = order >= half
        # one of the right half goes before those of the left half that are not there yet
        total += int((right * (half - (~right).cumsum(1))).sum())
        values, half = np.take_along_axis(rows, order, 1).ravel(), 2 * half
    return total
