"""`formwright::varlen_attention`: attention of packed sequences on the CPU, each on its own.

Shapes: B sequences, T rows of all their queries, U of all their keys, H heads, G heads of keys and
values (H a multiple of G), K key width, V value width; n queries and s keys of one sequence.

    out[rows of b] = softmax(scale * q[rows of b] @ k[keys of b].T + bias) @ v[keys of b]

The fused kernel runs on views of the packed rows, so nothing is copied and nothing padded. What a
query sees is an interval of its sequence's keys: causal and windowed attention are cut into blocks
as in `attention.py`. Naive form: `attend_packed`. Next: `sequences.py` for where sequences lie.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from .attention_blocks import Block, Kind, whole
from .attention_formula import Terms, attend
from .block_kernel import (
    Maybe,
    backward,
    cut_terms,
    flash,
    forward,
    in_rows,
    parts,
    same_width,
    wide,
)
from .mask_plan import LARGEST
from .sequences import Group, Packing, heads_first

# --- what is added --------------------------------------------------------------------------------


def _parts(
    packing: Packing, bias: Maybe, scale: float
) -> Iterator[tuple[Group, Terms, tuple[Block, ...]]]:
    """The groups, what happens to their scores, and their blocks."""
    if bias is None:
        for group in packing.groups(together=True):
            terms = Terms(None, None, scale, -math.inf)
            if any(block.kind is Kind.DENSE for block in group.blocks):
                terms = _terms(group, packing, None, scale)
            yield group, terms, group.blocks
        return
    for group in packing.groups(together=False):
        terms = _terms(group, packing, bias, scale)
        kind = Kind.DENSE if _is_tame(terms) else Kind.FORMULA
        sizes = (x.stop - x.start for x in (group.rows, group.keys))
        yield group, terms, tuple(whole(kind, *sizes))


def _terms(group: Group, packing: Packing, bias: Maybe, scale: float) -> Terms:
    """Bias and mask of one sequence; the bias is a view where its tokens lie together."""
    part = None if bias is None else bias[_one(bias, group)][_places(packing, bias, group)]
    mask = None
    if packing.seen is not None:
        rows, keys = (x.stop - x.start for x in (group.rows, group.keys))
        limits = packing.seen[group.rows][: rows // group.count]
        at = torch.arange(keys // group.count)
        mask = ((at >= limits[:, :1]) & (at < limits[:, 1:]))[None, None]
    return Terms(part, mask, scale, -math.inf)


def _one(bias: torch.Tensor, group: Group) -> slice:
    return slice(group.first, group.first + 1) if bias.shape[0] > 1 else slice(0, 1)


def _places(packing: Packing, bias: torch.Tensor, group: Group) -> tuple[Any, ...]:
    """What picks the tokens of a sequence out of a bias [1, H, L|1, S|1]."""
    at = _together(packing.q_position[group.rows]), _together(packing.k_position[group.keys])
    queries, found = (
        slice(None) if bias.shape[axis] == 1 else place
        for axis, place in zip((2, 3), at, strict=True)
    )
    if isinstance(queries, torch.Tensor) and isinstance(found, torch.Tensor):
        queries = queries[:, None]
    return slice(None), slice(None), queries, found


def _together(position: torch.Tensor) -> slice | torch.Tensor:
    """Positions as a slice if they follow one another."""
    if len(position) == 0:
        return slice(0, 0)
    first, last = int(position[0]), int(position[-1])
    return slice(first, last + 1) if last - first + 1 == len(position) else position


def _is_tame(terms: Terms) -> bool:
    """Whether the fused backward keeps its digits: see `mask_plan.py`."""
    assert terms.bias is not None
    bias = terms.bias.detach()
    if terms.mask is not None:
        bias = torch.where(terms.mask, bias, -math.inf)
    return bool(bias.amax(-1).abs().amax() <= LARGEST)


# --- the operator ---------------------------------------------------------------------------------


def attend_packed(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: Packing, bias: Maybe, scale: float
) -> torch.Tensor:
    """The definition [T, H, V], differentiable any number of times."""
    found: list[torch.Tensor] = []
    for group in packing.groups(together=False):
        mine = group.views(*heads_first(q, k, v))
        terms = _terms(group, packing, bias, scale)
        found.append(attend(mine[0], mine[1], mine[2], terms)[0])
    nothing = q.sum() * q.new_empty((0, q.shape[1], v.shape[-1]))  # as differentiable as the rest
    return torch.cat(found, 1).transpose(0, 1) if found else nothing


@torch.library.custom_op("formwright::varlen_attention", mutates_args=(), device_types="cpu")
def varlen_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    q_starts: torch.Tensor,
    k_starts: torch.Tensor,
    q_position: torch.Tensor,
    k_position: torch.Tensor,
    seen: Maybe,
    bias: Maybe,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [T,H,K], k [U,G,K], v [U,G,V]; the rest as in `Packing`, bias [B|1,H|1,L|1,S|1]. Each
    query sees a key. Returns out [T,H,V] and the log of the sum of exponents [T,H]."""
    packing = Packing(q_starts, k_starts, q_position, k_position, seen)
    out, lse = _empty(q, v)
    width = v.shape[-1]
    *operands, outs, sums = heads_first(*same_width(q, k, v), out, lse[..., None])
    for group, terms, blocks in _parts(packing, bias, scale):
        mine = group.views(*operands)
        to, to_sums = (group.views(x)[0] for x in (outs, sums))
        if group.causal is not None and bias is None:  # mostly: as few calls as can be
            part, part_sums = flash(*mine, 0.0, group.causal, scale=scale)
            to.copy_(part[..., :width])
            to_sums.copy_(part_sums[..., None])
            continue
        for block in blocks:
            part, part_sums = forward(block, mine[0], mine[1], mine[2], terms)
            to[:, :, block.rows] = part[..., :width]
            to_sums[:, :, block.rows, 0] = part_sums
    return out, lse


@varlen_attention.register_fake
def _(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    return _empty(q, v)


def _empty(q: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows, heads, _ = q.shape
    return q.new_empty((rows, heads, v.shape[-1])), q.new_empty((rows, heads), dtype=wide(q))


# --- gradients ------------------------------------------------------------------------------------


@torch.library.custom_op(
    "formwright::varlen_attention_backward", mutates_args=(), device_types="cpu"
)
def varlen_attention_backward(
    g: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    q_starts: torch.Tensor,
    k_starts: torch.Tensor,
    q_position: torch.Tensor,
    k_position: torch.Tensor,
    seen: Maybe,
    bias: Maybe,
    scale: float,
    wants_bias: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients for q, k, v and (empty if not `wants_bias`) the bias."""
    packing = Packing(q_starts, k_starts, q_position, k_position, seen)
    widths = [x.shape[-1] for x in (q, k, v)]
    g, q, k, v, out = same_width(g, q, k, v, out)
    totals = [torch.zeros(x.shape, dtype=x.dtype) for x in (q, k, v)]
    dbias = torch.zeros_like(bias) if wants_bias and bias is not None else q.new_empty(0)
    operands, gradients = heads_first(q, k, v), heads_first(*totals)
    saved = heads_first(g, out, lse[..., None])
    for group, terms, blocks in _parts(packing, bias, scale):
        mine, into = group.views(*operands), group.views(*gradients)
        dout, result, sums = (group.views(x)[0] for x in saved)
        for block in in_rows(list(blocks)) if wants_bias else blocks:
            grads = backward(block, dout, mine[0], mine[1], mine[2], result, sums[..., 0], terms)
            for total, grad in zip(parts(block, *into), grads, strict=False):
                total += grad
            if wants_bias:
                _add_to_bias(dbias, grads[3], group, terms, block, packing)
    dq, dk, dv = (
        x if x.shape[-1] == w else x[..., :w].contiguous()
        for x, w in zip(totals, widths, strict=True)
    )
    return dq, dk, dv, dbias


def _add_to_bias(
    dbias: torch.Tensor,
    ds: torch.Tensor,
    group: Group,
    terms: Terms,
    block: Block,
    packing: Packing,
) -> None:
    """Add the gradient of the scores of a block to where the bias came from."""
    assert terms.bias is not None
    whole_part = torch.zeros_like(terms.bias)
    cut = cut_terms(block, Terms(whole_part, None, 1.0, 0.0)).bias
    assert cut is not None
    cut += ds.sum_to_size(cut.shape).to(cut.dtype)
    dbias[_one(dbias, group)][_places(packing, dbias, group)] += whole_part


@varlen_attention_backward.register_fake
def _(
    g: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *rest: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    bias, wants_bias = rest[-3], rest[-1]
    dbias = torch.empty_like(bias) if wants_bias and bias is not None else q.new_empty(0)
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    return dq, dk, dv, dbias


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])


def _gradient(ctx: Any, g: torch.Tensor, _: Any) -> tuple[Any, ...]:
    q, k, v, *places, seen, bias, out, lse = ctx.saved_tensors
    wants_bias = bool(ctx.needs_input_grad[8])
    if torch.is_grad_enabled():  # somebody will differentiate this again
        result = attend_packed(
            q, k, v, Packing(places[0], places[1], places[2], places[3], seen), bias, ctx.scale
        )
        wanted = [x if x is not None and x.requires_grad else None for x in (q, k, v, bias)]
        sources = [x for x in wanted if x is not None]
        keywords = {"create_graph": True, "materialize_grads": True}
        found = iter(torch.autograd.grad(result, sources, g, **keywords))
        dq, dk, dv, dbias = (None if x is None else next(found) for x in wanted)
    else:
        dq, dk, dv, dbias = varlen_attention_backward(
            g, q, k, v, out, lse, *places, seen, bias, ctx.scale, wants_bias
        )
    return dq, dk, dv, None, None, None, None, None, dbias if wants_bias else None, None


varlen_attention.register_autograd(_gradient, setup_context=_setup)
