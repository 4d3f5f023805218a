"""Demanded tokens: what only one token of each sequence is read of is computed for that token.

Shapes: B batch, L length, D width, H heads, K head width.

    f(x)[:, i]   ->   f(x[:, i])      attention(q, k, v)[:, :, i]   ->   attention(q[:, :, i], k, v)

for token-wise f, as far back as nothing else reads the other tokens. Keys and values are needed
of all tokens, so that is the last layer of a classifier: queries, output projection and FFN.
Law: a token-wise call at one token reads its arguments at that token. It holds in every call, so
nothing is looked at. It must not know padding. Next: `packing.py` writes the calls on B rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import aten, decline, fake, is_call, readers, same_layout, same_size
from ..operators import ATTENTION, MASK_PLAN
from ..options import Options
from ..report import Reason
from .attention_parts import value_of
from .attention_read import AttentionRead, read_attention
from .axes import Layout, Unreadable, aligned, extent, new_axis
from .contract import Outcome
from .packing import Packer, Rows, in_order
from .rearrange import Writer
from .subgraph import ancestors, is_cheap_ahead
from .token_axes import TokenAxes, token_axes


@dataclass
class Pick:
    """Calls that read one token of each sequence, the same one: `position` is a number, or a node
    [B]. Each comes with the axis that it leaves at size one, if it leaves it."""

    position: Any
    readers: dict[fx.Node, int | None] = field(default_factory=dict)


def demand_tokens(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The pass. A site is a token that is picked from each sequence."""
    outcome = Outcome()
    reads = [r for r in map(read_attention, graph.nodes) if r is not None]
    if not reads:
        return outcome
    keys = value_of(reads[-1].key)
    axes = token_axes(graph, facts, keys.shape[0], keys.shape[2])
    for pick in _picks(graph, axes):
        outcome.sites += 1
        reader = next(iter(pick.readers))
        try:
            chosen = _only_for(pick, graph, axes)
            _build(graph, facts, axes, pick, chosen)
            outcome.rewritten += 1
        except Declined as declined:
            outcome.declined.append(decline(reader, declined.reason, str(declined)))
        except Unreadable as error:
            outcome.declined.append(decline(reader, Reason.SHAPES, str(error)))
    return outcome


# --- what is picked -----------------------------------------------------------------------------


def _picks(graph: fx.Graph, axes: TokenAxes) -> list[Pick]:
    found: dict[Any, Pick] = {}
    for node in graph.nodes:
        how = PICKS.get(node.target)
        layout = axes.layout(node.args[0]) if how is not None and node.args else None
        if how is None or layout is None or not _is_batch_first(layout, axes):
            continue
        picked = how(node, layout, axes)
        if picked is not None:
            position, kept = picked
            found.setdefault(position, Pick(position)).readers[node] = kept
    return list(found.values())


def _is_batch_first(layout: Layout, axes: TokenAxes) -> bool:
    """Whether what is picked from a value is rows of its sequences, as its packed form is."""
    tokens = axes.tokens
    return next((a for a in layout if a != (tokens.token,)), None) == (tokens.batch,)


def _of_select(node: fx.Node, layout: Layout, axes: TokenAxes) -> tuple[Any, int | None] | None:
    """select(x, dim, i)"""
    position = axes.tokens.selected(node, layout)
    return None if position is None else (position, None)


def _of_slice(node: fx.Node, layout: Layout, axes: TokenAxes) -> tuple[Any, int | None] | None:
    """slice(x, dim, i, i + 1)"""
    dim, start, end = node.args[1:4] if len(node.args) == 4 else (None, None, None)
    if not isinstance(dim, int) or layout[dim] != (axes.tokens.token,):
        return None
    if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start == end - 1:
        return None
    return start, dim % len(layout)


def _of_index(node: fx.Node, layout: Layout, axes: TokenAxes) -> tuple[Any, int | None] | None:
    """x[arange(B), i] with i [B]"""
    tokens, indices = axes.tokens, node.args[1]
    if layout[:2] != ((tokens.batch,), (tokens.token,)):
        return None
    if not isinstance(indices, list | tuple) or len(indices) != 2:
        return None
    sequence: Any = indices[0]
    position: Any = indices[1]
    value = fake(position) if isinstance(position, fx.Node) else None
    if value is None or value.dtype == torch.bool or value.dim() != 1:
        return None
    if not is_call(sequence, aten.arange.default) or len(sequence.args) != 1:
        return None
    if not same_size(value_of(sequence).shape, [tokens.batch.size]):
        return None
    return (position, None) if same_size(value.shape, [tokens.batch.size]) else None


Picks = Callable[[fx.Node, Layout, TokenAxes], tuple[Any, int | None] | None]

PICKS: dict[object, Picks] = {
    aten.select.int: _of_select,
    aten.slice.Tensor: _of_slice,
    aten.index.Tensor: _of_index,
}


# --- what is computed for it only ---------------------------------------------------------------


def _only_for(pick: Pick, graph: fx.Graph, axes: TokenAxes) -> dict[fx.Node, None]:
    """The calls of which only the picked tokens are read, in order."""
    only: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node not in axes.tokenwise or not node.users:
            continue
        if all(_at_the_pick(node, user, pick, only) for user in readers(node)):
            only.add(node)
    if not any(read_attention(n) is not None for n in only):
        raise Declined(Reason.NOT_WORTH_IT, "no attention is computed for it only")
    return in_order(graph, only, axes)


def _at_the_pick(node: fx.Node, user: fx.Node, pick: Pick, only: set[fx.Node]) -> bool:
    """Whether `user` reads `node` at the picked tokens only."""
    if user in pick.readers:
        return True
    if user not in only:
        return False
    read = read_attention(user)
    return read is None or (node is read.query and node not in (read.key, read.value))


# --- build --------------------------------------------------------------------------------------


def _build(
    graph: fx.Graph, facts: Facts, axes: TokenAxes, pick: Pick, chosen: dict[fx.Node, None]
) -> None:
    rows = _rows(graph, facts, axes, pick, next(iter(chosen)))
    packer = Packer(graph, facts, axes, rows, _attend)
    picked_from = {n: kept for n, kept in pick.readers.items() if n.args[0] in chosen}
    for node in list(graph.nodes):
        if node in chosen:
            packer.pack(node)
        elif node in picked_from:
            _replace(node, picked_from[node], packer.before(node))
    for node in reversed([*chosen, *picked_from]):
        if not node.users:
            graph.erase_node(node)


def _replace(node: fx.Node, kept: int | None, packer: Packer) -> None:
    """Let the readers of the picked token read it from where it is computed alone."""
    write, picked = packer.write, packer.rows(node.args[0])
    if kept is not None:
        picked = write.call(aten.unsqueeze.default, picked, kept)
    before = value_of(node)
    alike = same_layout(before, value_of(picked)) and not packer.facts.reaches_output(node)
    node.replace_all_uses_with(picked if alike else write.like(picked, before))


def _rows(graph: fx.Graph, facts: Facts, axes: TokenAxes, pick: Pick, first: fx.Node) -> Rows:
    """What picks the one token of each sequence."""
    if isinstance(pick.position, fx.Node):
        _move_before(first, pick.position, facts)
    write = Writer(graph, facts, first, facts.inputs)
    batch, length = write.sizes([axes.tokens.batch.size, axes.tokens.token.size])
    device = value_of(first if fake(first) is not None else first.args[0]).device  # type: ignore[arg-type]
    sequence = write.call(aten.arange.default, batch, device=device)
    position = pick.position
    if isinstance(position, fx.Node):
        from_end = write.call(aten.add.Tensor, position, length)
        negative = write.call(aten.lt.Scalar, position, 0)
        position = write.call(aten.where.self, negative, from_end, position)
    else:
        position = write.call(
            aten.full.default, [batch], position, dtype=torch.int64, device=device
        )
    begins = write.call(aten.mul.Tensor, sequence, length)
    return Rows(write.call(aten.add.Tensor, begins, position), sequence, position)


def _move_before(first: fx.Node, position: fx.Node, facts: Facts) -> None:
    """Compute which token it is before `first`. Raises Declined if it depends on what follows."""
    late = [
        n
        for n in ancestors(position)
        if n.op != "placeholder" and facts.order[n] > facts.order[first]
    ]
    if late and not is_cheap_ahead(position, facts):
        raise Declined(Reason.SHAPES, "which token is read is computed from activations")
    for node in late:
        first.prepend(node)
        facts.order[node] = facts.order[first]


# --- attention of one query ---------------------------------------------------------------------


def _attend(node: fx.Node, packer: Packer) -> fx.Node:
    """The same attention for one query of each sequence."""
    read, call = read_attention(node), packer.write.call
    assert read is not None
    query = call(aten.unsqueeze.default, packer.rows(read.query), 2)
    bias, mask = (_one_row(n, read, packer) for n in (read.bias, read.mask))
    if read.causal:
        mask = _up_to(read, packer)
    operands = query, read.key, read.value
    if is_call(node, ATTENTION):
        plan = None
        if bias is not None or mask is not None:
            fill = read.fill if read.mask is not None else float("-inf")
            records = packer.facts.records_gradients
            plan = call(MASK_PLAN, bias, mask, fill, records)
        new = packer.write.new(ATTENTION, *operands, bias, mask, plan, read.scale, read.fill, False)
        return call(aten.squeeze.dim, packer.write.item(new, 0), 2)
    hidden = mask if bias is None else bias
    kwargs = {k: v for k, v in node.kwargs.items() if k in ("scale", "enable_gqa")}
    target = aten.scaled_dot_product_attention.default
    made = packer.write.new(target, *operands, hidden, read.dropout, **kwargs)
    return call(aten.squeeze.dim, made, 2)


def _one_row(term: fx.Node | None, read: AttentionRead, packer: Packer) -> fx.Node | None:
    """The row of a mask or bias [B|1, H|1, L|1, S] that the one query has, [B|1, H|1, 1, S]."""
    if term is None:
        return None
    tokens = packer.tokens
    heads, keys = value_of(read.query).shape[1], value_of(read.key).shape[2]
    layout = ((tokens.batch,), new_axis(heads), (tokens.token,), new_axis(keys))
    own = aligned(layout, list(map(extent, layout)), value_of(term).shape)
    row = packer.write.call(aten.unsqueeze.default, packer.picked(term, own, layout), -2)
    while value_of(row).dim() < 4:
        row = packer.write.call(aten.unsqueeze.default, row, 0)
    return row


def _up_to(read: AttentionRead, packer: Packer) -> fx.Node:
    """What a causal query sees: the keys up to its own, [B, 1, 1, S]."""
    call, keys = packer.write.call, value_of(read.key)
    count = packer.write.sizes([keys.shape[2]])[0]
    at = call(aten.arange.default, count, device=keys.device)
    visible = call(aten.le.Tensor, at, call(aten.unsqueeze.default, packer.at.position, 1))
    return call(aten.unsqueeze.default, call(aten.unsqueeze.default, visible, 1), 1)
