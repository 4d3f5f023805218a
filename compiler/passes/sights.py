"""What the queries of an attention see, told by intervals where it can be.

Shapes: B batch, Q queries, L keys. Mostly a key is visible if it is real, whoever asks, and lies in
an interval that depends on the query alone: causal, windowed. Then nothing of the size B * Q * L is
ever made. It must not know where the values come from (`real_tokens.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..operators.mask_plan import HIDES

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Seen:
    """Key k is visible to query q of sequence b if `keys[b, k]` and, where there is no `matrix`
    [B|1, Q, L] that says so, `low[b, q] <= k < high[b, q]`.

    keys [B|1, L]; low and high int [B|1, Q|1], Q = 1 where all queries see the same.
    """

    keys: Array
    low: Array
    high: Array
    matrix: Array | None = None

    def reach(self, asking: Array | None = None) -> Array:
        """The keys [B|1, L] that some query sees; of those `asking` [B, Q], if given."""
        if self.matrix is not None:
            asked: Array = self.matrix if asking is None else self.matrix & asking[:, :, None]
            return np.asarray(asked.any(1) & self.keys)
        if self.low.shape[1] == 1:
            asked = (
                np.ones((1, 1), dtype=bool)
                if asking is None
                else np.asarray(asking.any(1, keepdims=True))
            )
        else:
            asked = np.ones(self.low.shape, dtype=bool) if asking is None else asking
        return _covered(self.low, self.high, asked, self.keys.shape[1]) & self.keys

    def among(self, keep: Array, asking: Array | None) -> Array | None:
        """What each query sees among the kept keys, int32 [B, Q|1, 2]; None if a query (of those
        `asking`) sees none, or something else than an interval of them."""
        if self.matrix is not None:
            return _intervals(self.matrix & self.keys[:, None], keep, asking)
        rank, real = _prefix(keep), _prefix(keep & self.keys)
        low, high = (np.broadcast_to(x, (len(keep), x.shape[1])) for x in (self.low, self.high))
        begin, end = (np.take_along_axis(rank, x, 1) for x in (low, high))
        count = np.take_along_axis(real, high, 1) - np.take_along_axis(real, low, 1)
        if not _good((count > 0) & (count == end - begin), asking):
            full = (self.keys[:, None] & _between(self.low, self.high, keep.shape[1])) & keep[
                :, None
            ]
            return _intervals(full, keep, asking)
        return np.stack([begin, end], -1).astype(np.int32)


def seen_by(sights: Sequence[tuple[Array, bool]], length: int) -> Seen | None:
    """What all of `sights` together show, each [B|1, 1, Q|1, L|1] with whether it is added to the
    scores; None if one that is added is more than a mask."""
    keys = np.ones((1, length), dtype=bool)
    across: Array | None = None
    queries = 1
    for value, added in sights:
        if added:
            shown = value == 0
            if not (shown | (value <= HIDES)).all():
                return None
            value = np.asarray(shown)
        value = value.reshape((1,) * (4 - value.ndim) + value.shape)[:, 0]
        queries = max(queries, value.shape[1])
        if value.all():
            continue
        if value.shape[1] == 1:
            keys = np.asarray(keys & value[:, 0])
        else:
            across = value if across is None else np.asarray(across & value)
    if across is None:
        ends = np.zeros((1, queries), dtype=np.int64)
        return Seen(keys, ends, ends + length)
    across = np.broadcast_to(across, (*across.shape[:2], length))
    low = across.argmax(-1)
    high = length - across[..., ::-1].argmax(-1)
    count = across.sum(-1)
    if ((count == high - low) | (count == 0)).all():
        return Seen(keys, low, np.where(count == 0, low, high))
    return Seen(keys, low, high, across)


def _covered(low: Array, high: Array, asked: Array, length: int) -> Array:
    """The keys [B|1, L] that lie in an interval of `asked`."""
    asked, low, high = np.broadcast_arrays(asked, low, high)
    change = np.zeros((len(asked), length + 1), dtype=np.int64)
    b, q = np.nonzero(asked)
    np.add.at(change, (b, low[b, q]), 1)
    np.add.at(change, (b, high[b, q]), -1)
    return np.asarray(change.cumsum(1)[:, :length] > 0)


def _prefix(cells: Array) -> Array:
    """How many cells [B, L] are True before each place, [B, L + 1]."""
    return np.pad(cells.cumsum(1), ((0, 0), (1, 0)))


def _between(low: Array, high: Array, length: int) -> Array:
    at = np.arange(length)
    return np.asarray((at >= low[..., None]) & (at < high[..., None]))


def _good(good: Array, asking: Array | None) -> bool:
    """Whether all queries are good, of those `asking`."""
    if asking is None:
        return bool(good.all())
    asking = asking if good.shape[1] > 1 else np.asarray(asking.any(1, keepdims=True))
    return bool((good | ~asking).all())


def _intervals(sight: Array, keep: Array, asking: Array | None) -> Array | None:
    """The same from a whole matrix [B|1, Q, L]."""
    sight = sight & keep[:, None]
    rank = _prefix(keep)
    first = sight.argmax(-1)
    last = sight.shape[-1] - sight[..., ::-1].argmax(-1)
    begin, end = (np.take_along_axis(rank, x, 1) for x in (first, last))
    count = sight.sum(-1)
    if not _good((count > 0) & (count == end - begin), asking):
        return None
    return np.stack([begin, end], -1).astype(np.int32)
