"""One block of attention, forward and backward: by the fused kernel or by the formula.

Shapes: B batch, H heads, L queries, S keys, K key width, V value width; a block is a rectangle of
queries and keys of some sequences (`attention_blocks.py`).
It must not know where blocks come from: `attention.py` cuts them out of padded sequences,
`varlen_attention.py` out of packed ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import pad

from .attention_blocks import Block, Kind, band_bias
from .attention_formula import Terms, attend, gradients

aten = torch.ops.aten
flash = aten._scaled_dot_product_flash_attention_for_cpu.default
flash_backward = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
Maybe = torch.Tensor | None

ROWS = 128  # queries whose scores exist at one time where a bias wants its gradient


def wide(x: torch.Tensor) -> torch.dtype:
    """The dtype that the kernel computes in: it holds large fills."""
    return torch.promote_types(x.dtype, torch.float32)


def tokens_first(like: torch.Tensor, *shape: Any) -> torch.Tensor:
    """An empty [B, H, L, K] whose memory is [B, L, H, K]."""
    b, h, length, width = shape
    return like.new_empty((b, length, h, width)).transpose(1, 2)


def same_width(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """The same with zeros behind the narrower: zeros add nothing to a product. The kernel wants
    one width, and the last axis dense."""
    width = max(t.shape[-1] for t in tensors)
    padded = [pad(t, (0, width - t.shape[-1])) if t.shape[-1] < width else t for t in tensors]
    return [t if t.stride(-1) == 1 else t.contiguous() for t in padded]


def cut_terms(block: Block, terms: Terms) -> Terms:
    """Bias and mask of one block; an axis of size one is broadcast and stays."""

    def cut(x: Maybe) -> Maybe:
        if x is None:
            return None
        x = x[block.batch] if x.shape[0] > 1 else x
        x = x[:, :, block.rows] if x.shape[2] > 1 else x
        return x[..., block.keys] if x.shape[3] > 1 else x

    return terms._replace(bias=cut(terms.bias), mask=cut(terms.mask))


def _added(block: Block, q: torch.Tensor, terms: Terms) -> Maybe:
    """What the kernel adds to the scores of a block."""
    dtype = wide(q)
    if block.kind is Kind.BAND:
        keys = block.keys.stop - block.keys.start
        return band_bias(block.band, keys, dtype)
    if block.kind is not Kind.DENSE:
        return None
    bias, mask = cut_terms(block, terms)[:2]
    added = None if bias is None else bias.to(dtype)
    if mask is not None:
        added = torch.where(mask, 0.0 if added is None else added, float("-inf")).to(dtype)
    assert added is not None
    rows, keys = block.rows.stop - block.rows.start, block.keys.stop - block.keys.start
    return added.expand(*added.shape[:2], rows, keys)


def parts(block: Block, q: torch.Tensor, *keyed: torch.Tensor) -> list[torch.Tensor]:
    b = block.batch
    return [q[b, :, block.rows], *(x[b, :, block.keys] for x in keyed)]


def forward(
    block: Block, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, terms: Terms
) -> tuple[torch.Tensor, torch.Tensor]:
    part = parts(block, q, k, v)
    if block.kind is Kind.FORMULA:
        out = attend(part[0], part[1], part[2], cut_terms(block, terms))
        return out, out.new_zeros(out.shape[:3], dtype=wide(q))
    added = _added(block, q, terms)
    causal = block.kind is Kind.CAUSAL
    out, lse = flash(*part, 0.0, causal, attn_mask=added, scale=terms.scale)
    return out, lse


def backward(
    block: Block,
    g: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    terms: Terms,
) -> tuple[torch.Tensor, ...]:
    """The gradients of one block; with that of the scores if it is computed by the formula."""
    mine = parts(block, q, k, v)
    dout, result, sums = (x[block.batch, :, block.rows] for x in (g, out, lse))
    if block.kind is Kind.FORMULA:
        return gradients(dout, mine[0], mine[1], mine[2], cut_terms(block, terms))
    added = _added(block, q, terms)
    causal = block.kind is Kind.CAUSAL
    grads: tuple[torch.Tensor, ...] = flash_backward(
        dout, *mine, result, sums, 0.0, causal, attn_mask=added, scale=terms.scale
    )
    return grads


def in_rows(found: list[Block]) -> Iterator[Block]:
    """The same blocks a few queries at a time, all by the formula."""
    for b in found:
        for start in range(b.rows.start, b.rows.stop, ROWS):
            rows = slice(start, min(start + ROWS, b.rows.stop))
            yield Block(b.batch, rows, b.keys, Kind.FORMULA)


def narrow(x: torch.Tensor, width: int) -> torch.Tensor:
    """The first `width` columns, in memory of their own if there are more."""
    if x.shape[-1] == width:
        return x
    return tokens_first(x, *x.shape[:3], width).copy_(x[..., :width])
