"""`formwright::attention`: masked attention on the CPU that skips what the mask hides.

Shapes: B batch, H heads, L queries, S keys, K key width, V value width.

    out = softmax(where(mask, scale * q @ k.T + bias, fill)) @ v

Naive form: `attention_formula.attend`. Here the plan of the mask is cut into blocks
(`attention_blocks.py`), each of which the fused kernel computes on views of q, k and v; rows that
see no key are computed by the formula, so they are what the formula says. Memory grows with L + S,
not with L * S. A second derivative is that of the formula.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import pad

from .attention_blocks import Block, Kind, band_bias, blocks, whole
from .attention_formula import Terms, attend, gradients
from .mask_plan import HIDES

aten = torch.ops.aten
flash = aten._scaled_dot_product_flash_attention_for_cpu.default
flash_backward = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
Maybe = torch.Tensor | None

UNDERFLOWS = 750.0  # exp(-750) is zero in float64 too
ROWS = 128  # queries whose scores exist at one time where a bias wants its gradient


@torch.library.custom_op("formwright::attention", mutates_args=(), device_types="cpu")
def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: Maybe,
    mask: Maybe,
    plan: Maybe,
    scale: float,
    fill: float,
    causal: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [B,H,L,K], k [B,G,S,K], v [B,G,S,V], H a multiple of G. `plan` comes from `mask_plan` for
    the same `bias` and `mask`; without one all keys are visible, or (`causal`, L = S) those up to
    the query's own. Returns out [B,H,L,V] and the log of the sum of exponents [B,H,L]."""
    terms = Terms(bias, mask, scale, fill)
    found = _blocks(q, k, plan, causal, terms)
    out, lse = _empty(q, v)
    width, same = v.shape[-1], q.shape[-1] == v.shape[-1] and q.stride(-1) == 1
    q, k, v = _same_width(q, k, v)
    if same and len(found) == 1 and found[0].kind is not Kind.FORMULA:
        return _forward(found[0], q, k, v, terms)
    for block in found:
        part, sums = _forward(block, q, k, v, terms)
        out[block.batch, :, block.rows] = part[..., :width]
        lse[block.batch, :, block.rows] = sums
    return out, lse


@attention.register_fake
def _(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    return _empty(q, v)


def _empty(q: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Room for out and the log-sum-exp, laid out as the kernel lays them out."""
    b, h, length, width = q.shape
    same = v.shape[-1] == width
    out = torch.empty_like(q) if same else _tokens_first(q, b, h, length, v.shape[-1])
    return out, q.new_empty((b, length, h), dtype=_wide(q)).transpose(1, 2)


def _wide(x: torch.Tensor) -> torch.dtype:
    """The dtype that the kernel computes in: it holds large fills."""
    return torch.promote_types(x.dtype, torch.float32)


def _tokens_first(like: torch.Tensor, *shape: Any) -> torch.Tensor:
    """An empty [B, H, L, K] whose memory is [B, L, H, K]."""
    b, h, length, width = shape
    return like.new_empty((b, length, h, width)).transpose(1, 2)


def _blocks(
    q: torch.Tensor, k: torch.Tensor, plan: Maybe, causal: bool, terms: Terms
) -> list[Block]:
    length, keys = q.shape[2], k.shape[2]
    if terms.mask is not None and not _hides(terms.fill, q, k, terms):
        return whole(Kind.FORMULA, length, keys)
    if plan is not None:
        return blocks(plan, q.shape[0], length, keys)
    return whole(Kind.CAUSAL if causal else Kind.ALL, length, keys)


def _hides(fill: float, q: torch.Tensor, k: torch.Tensor, terms: Terms) -> bool:
    """Whether exp(fill - score) is zero beside every score that there can be: a score is at most
    scale * |q| * |k| (Cauchy-Schwarz) and the largest bias."""
    if fill <= HIDES:
        return True
    longest = [x.float().square().sum(-1).amax().sqrt() for x in (q, k)]
    bound = terms.scale * longest[0] * longest[1]
    if terms.bias is not None:
        bound = bound + terms.bias.abs().amax()
    return bool(fill + bound < -UNDERFLOWS)


def _same_width(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """The same with zeros behind the narrower: zeros add nothing to a product. The kernel wants
    one width, and the last axis dense."""
    width = max(t.shape[-1] for t in tensors)
    padded = [pad(t, (0, width - t.shape[-1])) if t.shape[-1] < width else t for t in tensors]
    return [t if t.stride(-1) == 1 else t.contiguous() for t in padded]


def _cut(block: Block, terms: Terms) -> Terms:
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
    wide = _wide(q)
    if block.kind is Kind.BAND:
        keys = block.keys.stop - block.keys.start
        return band_bias(block.band, keys, wide)
    if block.kind is not Kind.DENSE:
        return None
    bias, mask = _cut(block, terms)[:2]
    added = None if bias is None else bias.to(wide)
    if mask is not None:
        added = torch.where(mask, 0.0 if added is None else added, float("-inf")).to(wide)
    assert added is not None
    rows, keys = block.rows.stop - block.rows.start, block.keys.stop - block.keys.start
    return added.expand(*added.shape[:2], rows, keys)


def _parts(block: Block, q: torch.Tensor, *keyed: torch.Tensor) -> list[torch.Tensor]:
    b = block.batch
    return [q[b, :, block.rows], *(x[b, :, block.keys] for x in keyed)]


def _forward(
    block: Block, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, terms: Terms
) -> tuple[torch.Tensor, torch.Tensor]:
    part = _parts(block, q, k, v)
    if block.kind is Kind.FORMULA:
        out = attend(part[0], part[1], part[2], _cut(block, terms))
        return out, out.new_zeros(out.shape[:3], dtype=_wide(q))
    added = _added(block, q, terms)
    causal = block.kind is Kind.CAUSAL
    out, lse = flash(*part, 0.0, causal, attn_mask=added, scale=terms.scale)
    return out, lse


# --- gradients ------------------------------------------------------------------------------------


@torch.library.custom_op("formwright::attention_backward", mutates_args=(), device_types="cpu")
def attention_backward(
    g: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    bias: Maybe,
    mask: Maybe,
    plan: Maybe,
    scale: float,
    fill: float,
    causal: bool,
    wants_bias: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients for q, k, v and (empty if not `wants_bias`) the bias."""
    terms = Terms(bias, mask, scale, fill)
    found = _blocks(q, k, plan, causal, terms)
    if wants_bias:
        found = list(_in_rows(found))
    width, value_width = q.shape[-1], v.shape[-1]
    g, q, k, v, out = _same_width(g, q, k, v, out)  # the kernel's own layout of q, and of out
    totals = [_tokens_first(x, *x.shape).zero_() for x in (q, k, v)]
    dbias = torch.zeros_like(bias) if wants_bias and bias is not None else q.new_empty(0)
    for block in found:
        grads = _backward(block, g, q, k, v, out, lse, terms)
        for total, grad in zip(_parts(block, *totals), grads, strict=False):
            total += grad
        if wants_bias:
            into = _cut(block, Terms(dbias, None, 1.0, 0.0)).bias
            assert into is not None
            into += grads[3].sum_to_size(into.shape).to(into.dtype)
    dq, dk, dv = totals
    return _narrow(dq, width), _narrow(dk, width), _narrow(dv, value_width), dbias


@attention_backward.register_fake
def _(
    g: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    bias: Maybe,
    *rest: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    wants_bias = rest[-1]
    dbias = torch.empty_like(bias) if wants_bias and bias is not None else q.new_empty(0)
    dq, dk, dv = (_tokens_first(x, *x.shape) for x in (q, k, v))
    return dq, dk, dv, dbias


def _narrow(x: torch.Tensor, width: int) -> torch.Tensor:
    """The first `width` columns, in memory of their own if there are more."""
    if x.shape[-1] == width:
        return x
    return _tokens_first(x, *x.shape[:3], width).copy_(x[..., :width])


def _in_rows(found: list[Block]) -> Iterator[Block]:
    """The same blocks a few queries at a time, all by the formula."""
    for b in found:
        for start in range(b.rows.start, b.rows.stop, ROWS):
            rows = slice(start, min(start + ROWS, b.rows.stop))
            yield Block(b.batch, rows, b.keys, Kind.FORMULA)


def _backward(
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
    mine = _parts(block, q, k, v)
    dout, result, sums = (x[block.batch, :, block.rows] for x in (g, out, lse))
    if block.kind is Kind.FORMULA:
        return gradients(dout, mine[0], mine[1], mine[2], _cut(block, terms))
    added = _added(block, q, terms)
    causal = block.kind is Kind.CAUSAL
    grads: tuple[torch.Tensor, ...] = flash_backward(
        dout, *mine, result, sums, 0.0, causal, attn_mask=added, scale=terms.scale
    )
    return grads


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    q, k, v, bias, mask, plan, ctx.scale, ctx.fill, ctx.causal = inputs
    ctx.save_for_backward(q, k, v, bias, mask, plan, *output)
    ctx.mark_non_differentiable(output[1])


def _gradient(ctx: Any, g: torch.Tensor, _: Any) -> tuple[Any, ...]:
    q, k, v, bias, mask, plan, out, lse = ctx.saved_tensors
    wants_bias = bool(ctx.needs_input_grad[3])
    if torch.is_grad_enabled():  # somebody will differentiate this again
        grads = _differentiable(ctx, g, q, k, v, bias, mask)
    else:
        numbers = (ctx.scale, ctx.fill, ctx.causal)
        grads = attention_backward(g, q, k, v, out, lse, bias, mask, plan, *numbers, wants_bias)
    return *grads[:3], grads[3] if wants_bias else None, None, None, None, None, None


def _differentiable(
    ctx: Any, g: torch.Tensor, q: Any, k: Any, v: Any, bias: Any, mask: Any
) -> list[Any]:
    """The same gradients, by autograd from the formula."""
    if ctx.causal:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    out = attend(q, k, v, Terms(bias, mask, ctx.scale, float("-inf") if ctx.causal else ctx.fill))
    wanted = [x if x is not None and x.requires_grad else None for x in (q, k, v, bias)]
    sources = [x for x in wanted if x is not None]
    found = iter(torch.autograd.grad(out, sources, g, create_graph=True))
    return [None if x is None else next(found) for x in wanted]


attention.register_autograd(_gradient, setup_context=_setup)
