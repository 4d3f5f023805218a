"""Which operators are token-wise, and how each is computed on packed rows: a row per operator.

Shapes: B batch, L padded length, T wanted tokens. The packed form of a value has its T rows first
and then its other axes, in their order; an axis of which B or L is only a part keeps the rest.

A rule has two halves. `layout` says what the axes of the result are, or raises Unreadable where the
call mixes tokens. `pack` makes the same call on packed values. It must not know where packing
begins or ends (`packing.py`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from ..graph import aten, fake, is_call, same_size
from .attention_read import CALLS
from .axes import (
    EXPANDS,
    ORDERS,
    SAME_ORDER,
    Axis,
    Layout,
    Unreadable,
    after,
    new_axis,
    shape_of,
)
from .norms import NORMS
from .token_axes import TokenAxes
from .token_rule import Packs, Rule, only_argument, without_tokens
from .token_rules_along import along, indexed, pack_indexed, pack_stack, stacked

# --- one cell from one cell -----------------------------------------------------------------------


def _broadcast(node: fx.Node, axes: TokenAxes) -> Layout:
    """The axes of a result that its operands broadcast to."""
    shape = shape_of(node)
    found: list[Axis | None] = [None] * len(shape)
    for layout in filter(None, map(axes.layout, node.all_input_nodes)):
        for i, axis in enumerate(reversed(layout), 1):
            have = found[-i]
            if have is not None and axis and axes.tokens.has(have) != axes.tokens.has(axis):
                raise Unreadable("its operands have their tokens along different axes")
            if axis and not have:
                found[-i] = axis
    filled = [new_axis(n) if a is None or not a else a for a, n in zip(found, shape, strict=True)]
    return axes.tokens.whole(tuple(filled))


def _pack_cells(node: fx.Node, pack: Packs) -> fx.Node:
    layout = _one(node, pack)
    args = fx.node.map_arg((node.args, node.kwargs), lambda n: pack.aligned(n, layout))
    return pack.call(node.target, *args[0], **args[1])


# --- along the other axes -------------------------------------------------------------------------


def _through_weight(at: int) -> Rule:
    """A product with a weight: the last axis is another one afterwards."""

    def layout(node: fx.Node, axes: TokenAxes) -> Layout:
        source = only_argument(node, axes, at)
        without_tokens(axes, source[-1])
        shape = shape_of(node)
        if len(shape) != len(source) or any(len(shape_of(n)) > 2 for n in _others(node, at)):
            raise Unreadable("it is no product with a weight")
        return axes.tokens.whole((*source[:-1], new_axis(shape[-1])))

    return Rule(layout, _pack_arg(at))


def _others(node: fx.Node, at: int) -> list[fx.Node]:
    return [n for n in node.all_input_nodes if n is not node.args[at] and fake(n) is not None]


def _pack_arg(at: int) -> Callable[[fx.Node, Packs], fx.Node]:
    def pack(node: fx.Node, packer: Packs) -> fx.Node:
        args = list(node.args)
        args[at] = packer.rows(args[at])
        return packer.call(node.target, *args, **node.kwargs)

    return pack


def _added_product(node: fx.Node, axes: TokenAxes) -> Layout:
    """addmm: what is added is the same for all rows."""
    if len(shape_of(node.args[0])) > 1:
        raise Unreadable("what it adds has rows")
    return _ADDED.layout(node, axes)  # type: ignore[return-value]


_ADDED = _through_weight(1)


def _looked_up(node: fx.Node, axes: TokenAxes) -> Layout:
    """embedding: each cell becomes a row of a table."""
    return axes.tokens.whole((*only_argument(node, axes, 1), new_axis(shape_of(node)[-1])))


def _normalised(node: fx.Node, axes: TokenAxes) -> Layout:
    """layer_norm, rms_norm: along the last axes."""
    source, sizes = only_argument(node, axes), node.args[1]
    assert isinstance(sizes, Sequence)
    without_tokens(axes, *source[len(source) - len(sizes) :])
    return source


# --- calls that only rearrange --------------------------------------------------------------------


def _rearranged(node: fx.Node, axes: TokenAxes) -> Layout:
    return axes.tokens.whole(axes.tokens.placed(after(node, _first_argument(node, axes)), node))


def _first_argument(node: fx.Node, axes: TokenAxes) -> Layout:
    """Of calls whose second argument, if it is a tensor, gives its shape only."""
    layout = axes.layout(node.args[0])
    if layout is None:
        raise Unreadable("its first argument has no tokens")
    return layout


def _pack_rearranged(node: fx.Node, pack: Packs) -> fx.Node:
    old, new = pack.axes.layout(node.args[0]), _one(node, pack)
    assert old is not None
    return pack.rearranged(pack.rows(node.args[0]), old, new)


def _one(node: fx.Node, pack: Packs) -> Layout:
    layout = pack.axes.layout(node)
    assert layout is not None
    return layout


def _expanded(node: fx.Node, axes: TokenAxes) -> Layout:
    source, shape = _first_argument(node, axes), shape_of(node)
    offset = len(shape) - len(source)
    axis = [new_axis(n) for n in shape[:offset]]
    for have, size, old in zip(source, shape[offset:], shape_of(node.args[0]), strict=True):
        axis.append(have if same_size([size], [old]) else new_axis(size))
    return axes.tokens.whole(tuple(axis))


def _pack_expanded(node: fx.Node, pack: Packs) -> fx.Node:
    layout = _one(node, pack)
    return pack.expanded(pack.aligned(node.args[0], layout), layout)


def _item(node: fx.Node, axes: TokenAxes) -> Layout:
    source: Any = node.args[0]
    layouts = axes.layouts[source]
    if not isinstance(layouts, list):
        raise Unreadable("it takes a part of one value")
    index: Any = node.args[1]
    found: Layout = layouts[index]
    return found


def _pack_item(node: fx.Node, pack: Packs) -> fx.Node:
    source = pack.rows(node.args[0])
    if is_call(node.args[0], *CALLS):  # its packed form is that of its first value
        return source
    return pack.call(operator.getitem, source, node.args[1])


# --- attention: from tokens to tokens of the same sequence ----------------------------------------


def _attended(node: fx.Node, axes: TokenAxes) -> Layout | list[Layout]:
    """queries, keys and values [B, heads, L, width]."""
    query, key, value = map(axes.layout, node.args[:3])
    if query is None or key is None or value is None:
        raise Unreadable("its queries, keys and values are not all tokens")
    if not all(map(axes.tokens.is_usual, (query, key, value))):
        raise Unreadable("its tokens are not along the usual axes")
    values = node.meta["val"]
    first = values[0] if isinstance(values, list | tuple) else values
    out = (*query[:3], new_axis(first.shape[-1]))
    return [out, query[:3]] if isinstance(values, list | tuple) else out


def _pack_attended(node: fx.Node, pack: Packs) -> fx.Node:
    return pack.attention(node)


# --- the table ------------------------------------------------------------------------------------

CELLS = Rule(_broadcast, _pack_cells)
REARRANGED = Rule(_rearranged, _pack_rearranged)

# Operators that give a cell from a cell, though they do not carry torch's tag for that.
CELLWISE = (
    aten.to.dtype,
    aten.to.device,
    aten.to.dtype_layout,
    aten._to_copy.default,
    aten.type_as.default,
    aten.dropout.default,
    aten.feature_alpha_dropout.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.alias.default,
    aten.detach.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.rand_like.default,
    aten.bernoulli.p,
    aten.masked_fill.Scalar,
    aten.masked_fill.Tensor,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
    aten.where.Scalar,
    aten.where.self,
    aten.float_power.Tensor_Scalar,
    aten.softplus.default,
    aten.prelu.default,
)

RULES: dict[object, Rule] = {
    aten.linear.default: _through_weight(0),
    aten.matmul.default: _through_weight(0),
    aten.mm.default: _through_weight(0),
    aten.addmm.default: Rule(_added_product, _ADDED.pack),
    aten.embedding.default: Rule(_looked_up, _pack_arg(1)),
    **dict.fromkeys(NORMS, Rule(_normalised, _pack_arg(0))),
    aten.rms_norm.default: Rule(_normalised, _pack_arg(0)),
    aten.softmax.int: along(1, "dim"),
    aten.log_softmax.int: along(1, "dim"),
    aten.logsumexp.default: along(1, "dim"),
    aten.cumsum.default: along(1, "dim"),
    aten.sum.dim_IntList: along(1, "dim"),
    aten.mean.dim: along(1, "dim"),
    aten.var.correction: along(1, "dim"),
    aten.var.dim: along(1, "dim"),
    aten.std.correction: along(1, "dim"),
    aten.amax.default: along(1, "dim"),
    aten.amin.default: along(1, "dim"),
    aten.argmax.default: along(1, "dim"),
    aten.max.dim: along(1, "dim"),
    aten.topk.default: along(2, "dim", default=-1),
    aten.linalg_vector_norm.default: along(2, "dim"),
    aten.glu.default: along(1, "dim", default=-1),
    aten.flip.default: along(1, "dims"),
    aten.slice.Tensor: along(1, "dim", default=0),
    aten.narrow.default: along(1, "dim"),
    aten.select.int: along(1, "dim"),
    aten.unbind.int: along(1, "dim", default=0),
    aten.chunk.default: along(2, "dim", default=0),
    aten.split.Tensor: along(2, "dim", default=0),
    aten.split.sizes: along(2, "dim", default=0),
    aten.split_with_sizes.default: along(2, "dim", default=0),
    aten.index_select.default: along(1, "dim"),
    aten.cat.default: along(1, "dim", default=0),
    aten.stack.default: Rule(stacked, pack_stack),
    aten.index.Tensor: Rule(indexed, pack_indexed),
    operator.getitem: Rule(_item, _pack_item),
    **dict.fromkeys(CALLS, Rule(_attended, _pack_attended)),
    **dict.fromkeys(EXPANDS, Rule(_expanded, _pack_expanded)),
    **dict.fromkeys((*SAME_ORDER, *ORDERS), REARRANGED),
    **dict.fromkeys(CELLWISE, CELLS),
}


def rule_of(node: fx.Node) -> Rule | None:
    """The rule of a call; None where it is not known to be token-wise."""
    if node.op != "call_function":
        return None
    found = RULES.get(node.target)
    if found is None and torch.Tag.pointwise in getattr(node.target, "tags", ()):
        return CELLS
    return found
