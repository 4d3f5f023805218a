"""`formwright::mask_plan`: which keys each query sees, told by intervals.

Shapes: B batch, H heads, L queries, S keys (B, H, L of a mask may be 1).

A plan is int32 [B, H, L, 3]: (first visible key, last visible key + 1, kind); NAN in the second
place says that the row is all NaN (softmax of nothing but -inf). Causal, padded,
windowed and packed masks are intervals; `attention_blocks.py` turns them into work that is left
out. Next: `attention.py` uses it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

EXACT, PLAIN, BIASED = 0, 1, 2
"""Kinds of a row: to be computed by the formula itself (no key is visible, or a bias is so large
that the fused kernel would lose digits); all keys of the interval visible, no bias; otherwise."""

NAN = -1
HIDES = -1e30  # a bias or fill from here on hides its key, whatever the score or other biases
LARGEST = 64.0  # the fused backward loses about |bias| * 2**-24 of each probability in float32
ROWS = 512  # of a mask, looked at together so that they stay in the cache


@torch.library.custom_op("formwright::mask_plan", mutates_args=(), device_types="cpu")
def mask_plan(
    bias: torch.Tensor | None, mask: torch.Tensor | None, fill: float, records: bool
) -> torch.Tensor:
    """The plan of scores + `bias` (float, added), which become `fill` where `mask` (bool) is False;
    each [B|1, H|1, L|1, S], at least one of them. `records`: gradients will be wanted."""
    if mask is None:
        assert bias is not None
        return _look(_of_bias, bias.detach(), records)
    if bias is not None and bool((bias <= HIDES).any()):  # hidden by both: neither tells alone
        lowest = fill if fill == -math.inf else torch.finfo(bias.dtype).min
        return _look(_of_bias, torch.where(mask, bias.detach(), lowest), records)
    plan = _look(_of_mask, mask, records)
    if fill == -math.inf:
        plan[..., 1].masked_fill_(plan[..., 2] == EXACT, NAN)
    if bias is None:
        return plan
    plan = plan.expand(*_rows(bias, mask), 3).clone()
    tame = _is_tame(bias.detach(), records) & (plan[..., 2] != EXACT)
    plan[..., 2] = torch.where(tame, BIASED, EXACT)
    return plan


@mask_plan.register_fake
def _(
    bias: torch.Tensor | None, mask: torch.Tensor | None, fill: float, records: bool
) -> torch.Tensor:
    given = bias if bias is not None else mask
    assert given is not None
    return given.new_empty((*_rows(bias, mask), 3), dtype=torch.int32)


def _rows(bias: torch.Tensor | None, mask: torch.Tensor | None) -> tuple[int, ...]:
    if bias is None or mask is None:
        given = bias if bias is not None else mask
        assert given is not None
        return tuple(given.shape[:-1])
    return tuple(torch.broadcast_shapes(bias.shape[:-1], mask.shape[:-1]))


def _look(
    look: Callable[[torch.Tensor, bool], torch.Tensor], values: torch.Tensor, records: bool
) -> torch.Tensor:
    """`look` at all rows of `values` [B, H, L, S], some at a time."""
    plan = torch.empty((*values.shape[:-1], 3), dtype=torch.int32)
    for b in range(values.shape[0]):
        for h in range(values.shape[1]):
            for start in range(0, values.shape[2], ROWS):
                rows = slice(start, start + ROWS)
                plan[b, h, rows] = look(values[b, h, rows], records)
    return plan


def _of_mask(visible: torch.Tensor, records: bool) -> torch.Tensor:
    """Plan rows [L, 3] of a boolean mask [L, S]."""
    first = _first(visible)
    last = visible.shape[-1] - _first(visible.flip(-1))
    seen = visible.sum(-1)
    kind = torch.where(seen == last - first, PLAIN, BIASED)
    kind = torch.where(seen == 0, EXACT, kind)
    return torch.stack([first, last, kind], -1).to(torch.int32)


def _first(visible: torch.Tensor) -> torch.Tensor:
    """The first True of each row, 0 if there is none. NumPy stops at it; torch reads every byte."""
    return torch.from_numpy(visible.numpy().argmax(-1))


def _of_bias(bias: torch.Tensor, records: bool) -> torch.Tensor:
    """Plan rows [L, 3] of an additive mask [L, S]."""
    visible = ~(bias <= HIDES)  # NaN counts as visible, and makes its row exact below
    rows = _of_mask(visible, records)
    zeros = (bias == 0).sum(-1)
    rows[:, 2] = torch.where(zeros == rows[:, 1] - rows[:, 0], rows[:, 2], BIASED)
    rows[:, 2] = torch.where(_is_tame(bias, records) & visible.any(-1), rows[:, 2], EXACT)
    rows[:, 1].masked_fill_(bias.amax(-1) == -math.inf, NAN)
    return rows


def _is_tame(bias: torch.Tensor, records: bool) -> torch.Tensor:
    """Whether the fused kernel keeps its digits on a row [..., S] of a bias. NaN is not tame."""
    largest = bias.amax(-1)
    if not records:
        return largest.abs() < -HIDES
    return largest.abs() <= LARGEST
