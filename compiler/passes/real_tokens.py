"""A fact that only the call knows: which tokens matter, and what each of them sees.

Shapes: B batch, L padded length of keys, Q of queries. A sight is [B|1, 1, Q|1, L]; cells that
readers name are [B|1, L|1].

The wanted tokens are the smallest set that holds the named cells and every key that is visible to
a wanted query. Attention from wanted tokens never reads another one, so the others need not exist.
It must not know graphs. Next: `remove_padding.py` for where the values come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from ..operators.mask_plan import HIDES
from .subgraph import fold_constants, picker


@dataclass(frozen=True)
class Looked:
    """What hides keys in some attentions of a graph: positions of its sights among the values that
    the prologue computes, each with whether it is added; whether their queries are the tokens
    themselves, and whether they want to be told the interval that each query sees."""

    sights: tuple[tuple[int, bool], ...]
    packs_queries: bool
    tells: bool


Array = npt.NDArray[Any]
Worth = Callable[[int, int], bool]  # (wanted tokens, all tokens) -> whether removing the rest pays


class RealTokens:
    """Holds in the calls in which tokens can be left out and what each sees is one interval.

    It gives `keep` [B, L] and, for each of `looked` that tells, `seen` int32 [B, Q, 2]: first and
    last + 1 of the visible keys, counted among the wanted ones of the sequence.
    """

    name = "packed"

    def __init__(
        self,
        compute: fx.GraphModule,
        positions: Sequence[int],
        looked: Sequence[Looked],
        named: int,
        shown: bool,
        worth: Worth,
    ) -> None:
        with torch.no_grad():
            fold_constants(compute)
        self._compute = compute
        self._pick = picker(positions)
        self._looked = tuple(looked)
        self._named = named
        self._shown = shown
        self._worth = worth

    def derive(self, inputs: Sequence[Any]) -> tuple[torch.Tensor, ...] | None:
        """See the class; None where the padded graph has to run."""
        with torch.no_grad():
            size, *values = self._compute.forward(*self._pick(inputs))
        # NumPy from here on: on arrays as small as these its calls take a fraction of torch's time
        arrays = [v.cpu().numpy() for v in values]
        told = self._derive(tuple(size.shape[:2]), arrays)
        if told is None:
            return None
        return tuple(torch.from_numpy(array).to(size.device) for array in told)

    def _derive(self, size: tuple[int, ...], arrays: list[Array]) -> list[Array] | None:
        named = arrays[len(arrays) - self._named :]
        visible = [_visible(looked, arrays) for looked in self._looked]
        if any(v is None for v in visible):
            return None
        pairs = list(zip(self._looked, visible, strict=True))
        keep = wanted(size, named, pairs, self._shown)
        kept = int(keep.sum())
        if kept in (0, keep.size) or not self._worth(kept, keep.size):
            return None
        told = [keep]
        for looked, sight in pairs:
            seen = intervals(sight, keep, looked.packs_queries)
            if seen is None:
                return None
            if looked.tells:
                told.append(
                    np.ascontiguousarray(np.broadcast_to(seen, (len(keep), *seen.shape[1:])))
                )
            elif not _sees_all(seen, keep):
                return None
        return told


def _visible(looked: Looked, arrays: Sequence[Array]) -> Array | None:
    """What all sights show, [B|1, Q|1, L]; None if one is more than a mask."""
    found: Array | None = None
    for position, added in looked.sights:
        value = arrays[position]
        if added:
            visible = value == 0
            if not (visible | (value <= HIDES)).all():
                return None
            value = visible
        found = value if found is None else found & value
    assert found is not None
    return found.reshape((1,) * (4 - found.ndim) + found.shape)[:, 0]


def wanted(
    size: tuple[int, ...],
    named: Sequence[Array],
    visible: Sequence[tuple[Looked, Array]],
    shown: bool,
) -> Array:
    """The wanted tokens [B, L]. `shown`: the caller reads every token that any query sees."""
    keep = np.zeros(size, dtype=bool)
    for cells in named:
        keep |= cells
    reach = [v.any(1) for _, v in visible]
    for (looked, _), cells in zip(visible, reach, strict=True):
        if shown or not looked.packs_queries:
            keep |= cells
    # What no query sees, no wanted query sees: mostly that settles it.
    while any((cells & ~keep).any() for cells in reach):
        before = keep.sum()
        for looked, sight in visible:
            if looked.packs_queries:
                keep |= (sight & keep[:, :, None]).any(1)
        if keep.sum() == before:
            break
    return keep


def intervals(sight: Array, keep: Array, packs_queries: bool) -> Array | None:
    """What each query sees among the kept keys, int32 [B, Q|1, 2]; None if a wanted query sees
    none, or something else than an interval of them. Rows of other queries mean nothing."""
    sight = sight & keep[:, None]  # [B, Q|1, L]
    rank = keep.cumsum(1)
    count = sight.sum(-1)
    first = sight.argmax(-1)
    last = sight.shape[-1] - 1 - sight[..., ::-1].argmax(-1)
    begin = np.take_along_axis(rank, first, 1) - 1
    end = np.take_along_axis(rank, last, 1)
    good = (count > 0) & (count == end - begin)
    if packs_queries:
        good |= ~(keep if good.shape[1] > 1 else keep.any(1, keepdims=True))
    if not good.all():
        return None
    return np.stack([begin, end], -1).astype(np.int32)


def _sees_all(seen: Array, keep: Array) -> bool:
    """Whether the queries of each sequence that has any see all its wanted keys."""
    count = keep.sum(1)[:, None]
    whole = (seen[..., 0] == 0) & (seen[..., 1] == count)
    return bool((whole | (count == 0)).all())
