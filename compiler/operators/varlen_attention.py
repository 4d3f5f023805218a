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
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .attention_blocks import Block, Kind, of_rows, whole
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
from .mask_plan import LARGEST, PLAIN


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


def _heads_first(*tensors: torch.Tensor) -> list[torch.Tensor]:
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
        mine = group.views(*_heads_first(q, k, v))
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
    *operands, outs, sums = _heads_first(*same_width(q, k, v), out, lse[..., None])
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
    operands, gradients = _heads_first(q, k, v), _heads_first(*totals)
    saved = _heads_first(g, out, lse[..., None])
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
