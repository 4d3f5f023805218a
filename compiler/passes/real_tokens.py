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
            named = values[len(values) - self._named :]
            visible = [_visible(looked, values) for looked in self._looked]
            if any(v is None for v in visible):
                return None
            keep = wanted(
                size.shape[:2], named, list(zip(self._looked, visible, strict=True)), self._shown
            )
            kept = int(keep.sum())
            if kept in (0, keep.numel()) or not self._worth(kept, keep.numel()):
                return None
            told = [keep]
            for looked, sight in zip(self._looked, visible, strict=True):
                seen = intervals(sight, keep, looked.packs_queries)
                if seen is None:
                    return None
                if looked.tells:
                    told.append(seen.expand(keep.shape[0], -1, -1).contiguous())
                elif not _sees_all(seen, keep):
                    return None
            return tuple(told)


def _visible(looked: Looked, values: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """What all sights show, [B|1, Q|1, L]; None if one is more than a mask."""
    found: torch.Tensor | None = None
    for position, added in looked.sights:
        value = values[position]
        if added:
            visible = value == 0
            if not bool((visible | (value <= HIDES)).all()):
                return None
            value = visible
        found = value if found is None else found & value
    assert found is not None
    while found.dim() < 4:
        found = found[None]
    return found[:, 0]


def wanted(
    size: Sequence[int],
    named: Sequence[torch.Tensor],
    visible: Sequence[tuple[Looked, torch.Tensor]],
    shown: bool,
) -> torch.Tensor:
    """The wanted tokens [B, L]. `shown`: the caller reads every token that any query sees."""
    keep = torch.zeros(tuple(size), dtype=torch.bool, device=visible[0][1].device)
    for cells in named:
        keep |= cells
    reach = [v.any(1) for _, v in visible]
    for (looked, _), cells in zip(visible, reach, strict=True):
        if shown or not looked.packs_queries:
            keep |= cells
    # What no query sees, no wanted query sees: mostly that settles it.
    while any(bool((cells & ~keep).any()) for cells in reach):
        before = int(keep.sum())
        for looked, sight in visible:
            if looked.packs_queries:
                keep = keep | (sight & keep[:, :, None]).any(1)
        if int(keep.sum()) == before:
            break
    return keep


def intervals(sight: torch.Tensor, keep: torch.Tensor, packs_queries: bool) -> torch.Tensor | None:
    """What each query sees among the kept keys, int32 [B, Q|1, 2]; None if a wanted query sees
    none, or something else than an interval of them. Rows of other queries mean nothing."""
    sight = sight & keep[:, None]  # [B, Q|1, L]
    rank = keep.cumsum(1)
    count = sight.sum(-1)
    first = sight.to(torch.uint8).argmax(-1)
    last = sight.shape[-1] - 1 - sight.flip(-1).to(torch.uint8).argmax(-1)
    begin, end = rank.gather(1, first) - 1, rank.gather(1, last)
    good = (count > 0) & (count == end - begin)
    if packs_queries:
        good = good | ~(keep if good.shape[1] > 1 else keep.any(1, keepdim=True))
    if not bool(good.all()):
        return None
    return torch.stack([begin, end], -1).to(torch.int32)


def _sees_all(seen: torch.Tensor, keep: torch.Tensor) -> bool:
    """Whether the queries of each sequence that has any see all its wanted keys."""
    count = keep.sum(1)
    whole = (seen[..., 0] == 0) & (seen[..., 1] == count[:, None])
    return bool((whole | (count == 0)[:, None]).all())
