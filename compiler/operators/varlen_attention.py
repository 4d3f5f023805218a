"""`formwright::varlen_attention`: attention of packed sequences on the CPU, each on its own.

Shapes: B sequences, T rows of all their queries, U of all their keys, H heads, G heads of keys and
values (H a multiple of G), K key width, V value width; n queries and s keys of one sequence.

    out[rows of b] = softmax(scale * q[rows of b] @ k[keys of b].T + bias) @ v[keys of b]

The fused kernel runs on views of the packed rows, so nothing is copied and nothing padded. What a
query sees is an interval of its sequence's keys: causal and windowed attention are cut into blocks
as in `attention.py`. Naive form: `attend_packed`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .attention_blocks import Block, Kind, of_rows, whole
from .attention_formula import Terms, attend
from .block_kernel import Maybe, backward, cut_terms, forward, in_rows, parts, same_width, wide
from .mask_plan import BIASED, LARGEST, PLAIN


@dataclass(frozen=True)
class Packing:
    """Where sequences lie: starts [B + 1], positions [T] and [U] in the padded sequence (for the
    bias), and `seen` int32 [T, 2]: the first and last + 1 of the keys of the sequence that a query
    sees; None where it sees all."""

    q_starts: torch.Tensor
    k_starts: torch.Tensor
    q_position: torch.Tensor
    k_position: torch.Tensor
    seen: Maybe


@dataclass(frozen=True)
class _Sequence:
    """One sequence: its rows, its keys, its place in the batch, and its part of the bias."""

    number: int
    rows: slice
    keys: slice
    terms: Terms


def attend_packed(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, packing: Packing, bias: Maybe, scale: float
) -> torch.Tensor:
    """The definition [T, H, V], differentiable any number of times."""
    found = [
        attend(*_batched(s, q, k, v), s.terms)[0].transpose(0, 1)
        for s in _sequences(packing, bias, scale)
    ]
    nothing = q.sum() * q.new_empty((0, q.shape[1], v.shape[-1]))  # as differentiable as the rest
    return torch.cat(found) if found else nothing


def _batched(sequence: _Sequence, q: torch.Tensor, *keyed: torch.Tensor) -> list[torch.Tensor]:
    """Views [1, H, n, K] and [1, G, s, K] of packed rows [T, H, K] and [U, G, K]."""
    pairs = [(q, sequence.rows), *((x, sequence.keys) for x in keyed)]
    return [x[rows].transpose(0, 1)[None] for x, rows in pairs]


def _sequences(packing: Packing, bias: Maybe, scale: float) -> Iterator[_Sequence]:
    """The sequences that have queries; their biases are views where the tokens lie together."""
    q_starts, k_starts = packing.q_starts.tolist(), packing.k_starts.tolist()
    for b, (start, stop) in enumerate(itertools.pairwise(q_starts)):
        if start == stop:
            continue
        rows, keys = slice(start, stop), slice(k_starts[b], k_starts[b + 1])
        mask = None
        if packing.seen is not None:
            mask = _visible(packing.seen[rows], keys.stop - keys.start)
        part = None
        if bias is not None:
            part = bias[_one(bias, b)][_places(packing, bias, rows, keys)]
        yield _Sequence(b, rows, keys, Terms(part, mask, scale, float("-inf")))


def _one(bias: torch.Tensor, b: int) -> slice:
    return slice(b, b + 1) if bias.shape[0] > 1 else slice(0, 1)


def _places(packing: Packing, bias: torch.Tensor, rows: slice, keys: slice) -> tuple[Any, ...]:
    """What picks the tokens of a sequence out of a bias [1, H, L|1, S|1]."""
    at = _together(packing.q_position[rows]), _together(packing.k_position[keys])
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


def _visible(seen: torch.Tensor, keys: int) -> Maybe:
    """Intervals [n, 2] as a mask [1, 1, n, s]; None where all keys are visible."""
    if bool((seen[:, 0] == 0).all()) and bool((seen[:, 1] == keys).all()):
        return None
    at = torch.arange(keys)
    return ((at >= seen[:, :1]) & (at < seen[:, 1:]))[None, None]


def _blocks(sequence: _Sequence, seen: Maybe) -> tuple[Block, ...]:
    length, keys = (x.stop - x.start for x in (sequence.rows, sequence.keys))
    terms = sequence.terms
    if terms.bias is not None and not _is_tame(terms, length, keys):
        return tuple(whole(Kind.FORMULA, length, keys))
    if terms.mask is None:
        return tuple(whole(Kind.ALL if terms.bias is None else Kind.DENSE, length, keys))
    assert seen is not None
    limits = seen[sequence.rows].contiguous().numpy().tobytes()
    return _of_intervals(limits, keys, PLAIN if terms.bias is None else BIASED)


def _is_tame(terms: Terms, length: int, keys: int) -> bool:
    """Whether the fused backward keeps its digits: see `mask_plan.py`."""
    assert terms.bias is not None
    bias = terms.bias.detach().expand(*terms.bias.shape[:2], length, keys)
    if terms.mask is not None:
        bias = torch.where(terms.mask, bias, float("-inf"))
    return bool(bias.amax(-1).abs().amax() <= LARGEST)


@functools.lru_cache(maxsize=256)
def _of_intervals(limits: bytes, keys: int, kind: int) -> tuple[Block, ...]:
    """All layers of a model ask for the same intervals: they are cut into blocks once."""
    seen = np.frombuffer(limits, dtype=np.int32).reshape(-1, 2)
    plan = np.column_stack([seen, np.full(len(seen), kind, dtype=np.int32)])
    return tuple(of_rows(plan, slice(0, 1), keys))


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
    q, k, v = same_width(q, k, v)
    for sequence in _sequences(packing, bias, scale):
        mine = _batched(sequence, q, k, v)
        to, sums = out[sequence.rows].transpose(0, 1), lse[sequence.rows].t()
        for block in _blocks(sequence, seen):
            part, part_sums = forward(block, *mine, sequence.terms)
            to[:, block.rows] = part[0, ..., :width]
            sums[:, block.rows] = part_sums[0]
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
    for sequence in _sequences(packing, bias, scale):
        mine = _batched(sequence, q, k, v)
        into = _batched(sequence, *totals)
        dout, result = (x[sequence.rows].transpose(0, 1)[None] for x in (g, out))
        sums = lse[sequence.rows].t()[None]
        blocks = _blocks(sequence, seen)
        for block in in_rows(list(blocks)) if wants_bias else blocks:
            grads = backward(block, dout, *mine, result, sums, sequence.terms)
            for total, grad in zip(parts(block, *into), grads, strict=False):
                total += grad
            if wants_bias:
                _add_to_bias(dbias, grads[3], sequence, block, packing)
    dq, dk, dv = (
        x if x.shape[-1] == w else x[..., :w].contiguous()
        for x, w in zip(totals, widths, strict=True)
    )
    return dq, dk, dv, dbias


def _add_to_bias(
    dbias: torch.Tensor, ds: torch.Tensor, sequence: _Sequence, block: Block, packing: Packing
) -> None:
    """Add the gradient of the scores of a block to where the bias came from."""
    part = sequence.terms.bias
    assert part is not None
    whole_part = torch.zeros_like(part)
    cut = cut_terms(block, Terms(whole_part, None, 1.0, 0.0)).bias
    assert cut is not None
    cut += ds.sum_to_size(cut.shape).to(cut.dtype)
    places = _places(packing, dbias, sequence.rows, sequence.keys)
    target = dbias[_one(dbias, sequence.number)]
    target[places] += whole_part


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
        result = attend_packed(q, k, v, Packing(*places, seen), bias, ctx.scale)
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
