"""Where packed sequences lie, and which of them the kernel takes in one call.

Shapes: B sequences, T rows of all their queries, U of all their keys, H heads, G heads of keys and
values, K width; n queries and s keys of one sequence.
It must not know attention (`varlen_attention.py`).
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .attention_blocks import Block, Kind, of_rows, whole
from .mask_plan import PLAIN


@dataclass(frozen=True)
class Packing:
    """Where sequences lie: starts [B + 1], positions [T] and [U] in the padded sequence (for the
    bias), and `seen` int32 [T, 2]: the first and last + 1 of the keys of the sequence that a query
    sees; None where it sees all."""

    q_starts: torch.Tensor
    k_starts: torch.Tensor
    q_position: torch.Tensor
    k_position: torch.Tensor
    seen: torch.Tensor | None

    def groups(self, together: bool) -> tuple[Group, ...]:
        """The sequences that have queries. `together`: those that lie beside each other and are
        alike make one group."""
        starts = (self.q_starts.numpy().tobytes(), self.k_starts.numpy().tobytes())
        seen = None if self.seen is None else self.seen.contiguous().numpy().tobytes()
        return _groups(*starts, seen, together)


@dataclass(frozen=True)
class Group:
    """`count` sequences from number `first` on, each of n queries and s keys, and the blocks that
    one of them is computed in where nothing is added."""

    first: int
    count: int
    rows: slice
    keys: slice
    blocks: tuple[Block, ...]

    @property
    def causal(self) -> bool | None:
        """Whether one call of the kernel computes it, causal or not; None if that takes more."""
        block, keys = self.blocks[0], (self.keys.stop - self.keys.start) // self.count
        if len(self.blocks) > 1 or block.keys != slice(0, keys):
            return None
        return {Kind.ALL: False, Kind.CAUSAL: True}.get(block.kind)

    def views(self, q: torch.Tensor, *keyed: torch.Tensor) -> list[torch.Tensor]:
        """Views [count, H, n, K] and [count, G, s, K] of rows [1, H, T, K] and [1, G, U, K]."""
        return [self._view(q, self.rows), *(self._view(x, self.keys) for x in keyed)]

    def _view(self, x: torch.Tensor, rows: slice) -> torch.Tensor:
        part = x.narrow(2, rows.start, rows.stop - rows.start)
        if self.count == 1:
            return part
        split: torch.Tensor = part.unflatten(2, (self.count, -1))
        return split.squeeze(0).transpose(0, 1)


def heads_first(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """Packed rows [T, H, K] as [1, H, T, K]."""
    return [x.transpose(0, 1).unsqueeze(0) for x in tensors]


@functools.lru_cache(maxsize=64)
def _groups(q: bytes, k: bytes, seen: bytes | None, together: bool) -> tuple[Group, ...]:
    """All layers of a model ask for the same groups: they are worked out once."""
    q_starts, k_starts = (np.frombuffer(x, dtype=np.int64).tolist() for x in (q, k))
    limits = None if seen is None else np.frombuffer(seen, dtype=np.int32).reshape(-1, 2)
    found: list[Group] = []
    for b, (start, stop) in enumerate(itertools.pairwise(q_starts)):
        if start == stop:
            continue
        rows, keys = slice(start, stop), slice(k_starts[b], k_starts[b + 1])
        mine = None if limits is None else limits[rows]
        group = Group(b, 1, rows, keys, _blocks(mine, stop - start, keys.stop - keys.start))
        found = [*found[:-1], *_joined(found[-1], group)] if together and found else [*found, group]
    return tuple(found)


def _joined(last: Group, new: Group) -> list[Group]:
    """Two groups as one, if the sequences are alike and nothing lies between them."""
    size = [(x.stop - x.start) for x in (new.rows, new.keys)]
    alike = [(x.stop - x.start) // last.count for x in (last.rows, last.keys)] == size
    beside = last.rows.stop == new.rows.start and last.keys.stop == new.keys.start
    if not alike or not beside or last.blocks != new.blocks:
        return [last, new]
    rows = slice(last.rows.start, new.rows.stop)
    return [
        Group(last.first, last.count + 1, rows, slice(last.keys.start, new.keys.stop), new.blocks)
    ]


def _blocks(limits: Any, length: int, keys: int) -> tuple[Block, ...]:
    """What `limits` [n, 2] show to the queries of a sequence, nothing added."""
    if limits is None or ((limits[:, 0] == 0) & (limits[:, 1] == keys)).all():
        return tuple(whole(Kind.ALL, length, keys))
    plan = np.column_stack([limits, np.full(length, PLAIN, dtype=np.int32)])
    return tuple(of_rows(plan, slice(None), keys))
