"""A fact that only the call knows: which tokens matter, and what each of them sees.

Shapes: B batch, L padded length of keys, Q queries. A sight is [B|1, 1, Q|1, L|1]; cells that
readers name are [B|1, L|1].

The wanted tokens are the smallest set that holds the named cells and every key that is visible to
a wanted query. Attention from wanted tokens never reads another one, so the others need not exist.
It must not know graphs. Next: `packed_graph.py` for where the values come from, `sights.py` for how
what is seen is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from .sights import Array, Seen, seen_by
from .subgraph import fold_constants, picker

Worth = Callable[[int, int, int], bool]
"""(wanted tokens, all tokens, sequences) -> whether removing the rest pays."""


@dataclass(frozen=True)
class Looked:
    """What hides keys in some attentions of a graph: positions of its sights among the values that
    the prologue computes, each with whether it is added; where among these a value [Q] is, if the
    queries are not the tokens themselves; whether the interval that each query sees is told."""

    sights: tuple[tuple[int, bool], ...]
    queries: int | None
    tells: bool

    @property
    def packs_queries(self) -> bool:
        """Whether the queries are the tokens themselves."""
        return self.queries is None


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
        told = self._derive(tuple(size.shape[:2]), [v.cpu().numpy() for v in values])
        if told is None:
            return None
        return tuple(torch.from_numpy(array).to(size.device) for array in told)

    def _derive(self, size: tuple[int, ...], arrays: list[Array]) -> list[Array] | None:
        named = arrays[len(arrays) - self._named :] if self._named else []
        found: list[tuple[Looked, Seen]] = []
        for looked in self._looked:
            seen = seen_by([(arrays[i], added) for i, added in looked.sights], size[1])
            if seen is None:
                return None
            found.append((looked, seen))
        keep = wanted(size, named, found, self._shown)
        kept = int(keep.sum())
        if kept in (0, keep.size) or not self._worth(kept, keep.size, size[0]):
            return None
        told = [keep]
        for looked, seen in found:
            limits = seen.among(keep, keep if looked.packs_queries else None)
            if limits is None:
                return None
            if looked.tells:
                count = size[1] if looked.queries is None else len(arrays[looked.queries])
                whole = (size[0], count, 2)
                told.append(np.broadcast_to(limits, whole).copy())
            elif not _sees_all(limits, keep):
                return None
        return told


def wanted(
    size: tuple[int, ...],
    named: Sequence[Array],
    found: Sequence[tuple[Looked, Seen]],
    shown: bool,
) -> Array:
    """The wanted tokens [B, L]. `shown`: the caller reads every token that any query sees."""
    keep = np.zeros(size, dtype=bool)
    for cells in named:
        keep |= cells
    reach = [seen.reach() for _, seen in found]
    for (looked, _), cells in zip(found, reach, strict=True):
        if shown or not looked.packs_queries:
            keep |= cells
    # What no query sees, no wanted query sees: mostly that settles it.
    while any((cells & ~keep).any() for cells in reach):
        before = keep.sum()
        for looked, seen in found:
            if looked.packs_queries:
                keep |= seen.reach(keep)
        if keep.sum() == before:
            break
    return keep


def _sees_all(limits: Array, keep: Array) -> bool:
    """Whether the queries of each sequence that has any see all its wanted keys."""
    count = keep.sum(1)[:, None]
    whole = (limits[..., 0] == 0) & (limits[..., 1] == count)
    return bool((whole | (count == 0)).all())
