"""From the plan of a mask to blocks of work: what is hidden is left out.

Shapes: B batch, L queries, S keys. A block is a rectangle of queries and keys of some sequences.
It must not know how a block is computed (`attention.py` does).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch

from .mask_plan import EXACT, NAN, PLAIN

ROWS = 128  # queries of a block that is cut out of a band: measured, 64 to 512
SHORTEST = 64  # a run of queries that is worth a block of its own
OVERHEAD = 4096  # what starting a block costs, in query-key pairs
WORTH = 0.85  # of the whole rectangle: more than this is not worth cutting


class Kind(Enum):
    """How a block is to be computed."""

    ALL = "all keys visible"
    CAUSAL = "square, query i sees keys up to i"
    BAND = "intervals, no bias"
    DENSE = "with the bias and the mask as they are"
    FORMULA = "by the formula: hidden rows, and biases that the kernel cannot take"


@dataclass(frozen=True)
class Block:
    """`batch`, `rows` and `keys` are slices of q and k; `band` holds [rows, 2] for BAND."""

    batch: slice
    rows: slice
    keys: slice
    kind: Kind
    band: bytes = b""


def whole(kind: Kind, length: int, keys: int) -> list[Block]:
    """Everything as one block."""
    return [Block(slice(None), slice(0, length), slice(0, keys), kind)]


def blocks(plan: torch.Tensor, batch: int, length: int, keys: int) -> list[Block]:
    """The blocks that compute what `plan` ([B|1, H|1, L|1, 3]) asks for."""
    return list(
        _blocks(plan.contiguous().numpy().tobytes(), tuple(plan.shape), batch, length, keys)
    )


@functools.lru_cache(maxsize=32)
def _blocks(
    data: bytes, shape: tuple[int, ...], batch: int, length: int, keys: int
) -> tuple[Block, ...]:
    """All layers of a model ask for the same plan: it is worked out once."""
    rows = np.frombuffer(data, dtype=np.int32).reshape(shape)
    per_sequence = np.broadcast_to(_over_heads(rows), (shape[0], length, 3))
    alike = bool((per_sequence == per_sequence[:1]).all())
    if alike:
        return tuple(of_rows(per_sequence[0], slice(None), keys))
    found = [
        block for b in range(batch) for block in of_rows(per_sequence[b], slice(b, b + 1), keys)
    ]
    if any(block.kind is Kind.FORMULA for block in found):
        return tuple(found)
    if _cost(found) > WORTH * (batch * length * keys + OVERHEAD):
        return tuple(whole(Kind.DENSE, length, keys))
    return tuple(found)


def _over_heads(rows: Any) -> Any:
    """[B, L, 3]: what holds for all heads. Heads that differ need the bias and mask themselves."""
    if rows.shape[1] == 1:
        return rows[:, 0]
    merged = np.stack([rows[..., 0].min(1), rows[..., 1].max(1), rows[..., 2].max(1)], -1)
    same = (rows == rows[:, :1]).all(1)
    merged[..., 2] = np.where(same.all(-1), merged[..., 2], 2)
    merged[..., 2] = np.where((rows[..., 2] == EXACT).any(1), EXACT, merged[..., 2])
    merged[..., 1] = np.where((rows[..., 1] == NAN).any(1), NAN, merged[..., 1])
    return merged


def of_rows(plan: Any, batch: slice, keys: int) -> list[Block]:
    """The blocks of sequences that share one plan [L, 3]."""
    length = len(plan)
    if (plan[:, 1] == NAN).any():  # 0 * NaN is NaN: later layers read it even where it is hidden
        return [Block(batch, slice(0, length), slice(0, keys), Kind.FORMULA)]
    found = list(_runs(plan, batch, keys))
    exact = any(b.kind is Kind.FORMULA for b in found)
    if len(found) > 1 and not exact and _cost(found) > WORTH * (length * keys + OVERHEAD):
        return [Block(batch, slice(0, length), slice(0, keys), Kind.DENSE)]
    return found


def _runs(plan: Any, batch: slice, keys: int) -> Iterator[Block]:
    low, high, kind = plan[:, 0], plan[:, 1], plan[:, 2]
    length = len(plan)
    kinds = _run_ends(kind[1:] == kind[:-1], length)
    flats = _run_ends((low[1:] == low[:-1]) & (high[1:] == high[:-1]), length)
    stairs = _run_ends((low[1:] == low[:-1]) & (high[1:] == high[:-1] + 1), length)
    i = 0
    while i < length:
        end = int(kinds[i])
        if kind[i] == EXACT:
            yield Block(batch, slice(i, end), slice(0, keys), Kind.FORMULA)
            i = end
            continue
        plain = kind[i] == PLAIN
        flat, stair = min(end, int(flats[i])), min(end, int(stairs[i]))
        if plain and high[i] - low[i] == 1 and (stair == end or stair - i >= SHORTEST):
            stop, what = stair, Kind.CAUSAL
        elif plain and (flat == end or flat - i >= SHORTEST):
            stop, what = flat, Kind.ALL
        else:
            stop, what = min(i + ROWS, end), Kind.BAND if plain else Kind.DENSE
        first, last = int(low[i:stop].min()), int(high[i:stop].max())
        band = b""
        if what is Kind.BAND:
            band = (plan[i:stop, :2] - first).astype(np.int32).tobytes()
        yield Block(batch, slice(i, stop), slice(first, last), what, band)
        i = stop


def _run_ends(same: Any, length: int) -> Any:
    """For each row, where the run of rows that are alike (`same[i]`: i and i + 1) ends."""
    breaks = np.append(np.flatnonzero(~same) + 1, length)
    return breaks[np.searchsorted(breaks, np.arange(length), side="right")]


def _cost(found: list[Block]) -> float:
    """Query-key pairs that are computed, and what it costs to start."""
    total = 0.0
    for b in found:
        area = (b.rows.stop - b.rows.start) * (b.keys.stop - b.keys.start)
        total += OVERHEAD + (area / 2 if b.kind is Kind.CAUSAL else area)
    return total


@functools.lru_cache(maxsize=64)
def band_bias(band: bytes, keys: int, dtype: torch.dtype) -> torch.Tensor:
    """The additive mask [rows, keys] of a BAND block."""
    limits = torch.from_numpy(np.frombuffer(band, dtype=np.int32).reshape(-1, 2).copy())
    at = torch.arange(keys)
    visible = (at >= limits[:, :1]) & (at < limits[:, 1:])
    hidden = torch.full((), float("-inf"), dtype=dtype)
    return torch.where(visible, torch.zeros((), dtype=dtype), hidden)
