"""`formwright::attention`: masked attention on the CPU that skips what the mask hides.

Shapes: B batch, H heads, L queries, S keys, K key width, V value width.

    out = softmax(where(mask, scale * q @ k.T + bias, fill)) @ v

Naive form: `attention_formula.attend`. Here the plan of the mask is cut into blocks
(`attention_blocks.py`), each of which the fused kernel computes on views of q, k and v
(`block_kernel.py`); rows that
see no key are computed by the formula, so they are what the formula says. Memory grows with L + S,
not with L * S. A second derivative is that of the formula.
"""

from __future__ import annotations

from typing import Any

import torch

from .attention_blocks import Block, Kind, blocks, whole
from .attention_formula import Terms, attend
from .block_kernel import (
    Maybe,
    backward,
    cut_terms,
    forward,
    in_rows,
    narrow,
    parts,
    same_width,
    tokens_first,
    wide,
)
from .mask_plan import HIDES

UNDERFLOWS = 750.0  # exp(-750) is zero in float64 too


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
    q, k, v = same_width(q, k, v)
    if same and len(found) == 1 and found[0].kind is not Kind.FORMULA:
        return forward(found[0], q, k, v, terms)
    for block in found:
        part, sums = forward(block, q, k, v, terms)
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
    out = torch.empty_like(q) if same else tokens_first(q, b, h, length, v.shape[-1])
    return out, q.new_empty((b, length, h), dtype=wide(q)).transpose(1, 2)


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
        found = list(in_rows(found))
    width, value_width = q.shape[-1], v.shape[-1]
    g, q, k, v, out = same_width(g, q, k, v, out)  # the kernel's own layout of q, and of out
    totals = [tokens_first(x, *x.shape).zero_() for x in (q, k, v)]
    dbias = torch.zeros_like(bias) if wants_bias and bias is not None else q.new_empty(0)
    for block in found:
        grads = backward(block, g, q, k, v, out, lse, terms)
        for total, grad in zip(parts(block, *totals), grads, strict=False):
            total += grad
        if wants_bias:
            into = cut_terms(block, Terms(dbias, None, 1.0, 0.0)).bias
            assert into is not None
            into += grads[3].sum_to_size(into.shape).to(into.dtype)
    dq, dk, dv = totals
    return narrow(dq, width), narrow(dk, width), narrow(dv, value_width), dbias


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
    dq, dk, dv = (tokens_first(x, *x.shape) for x in (q, k, v))
    return dq, dk, dv, dbias


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
