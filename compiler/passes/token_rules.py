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
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import fx

from ..graph import aten, fake
from .attention_read import CALLS
from .axes import (
    EXPANDS,
    ORDERS,
    SAME_ORDER,
    Axis,
    Layout,
    Unreadable,
    after,
    is_one,
    new_axis,
    shape_of,
)
from .token_axes import TokenAxes


class Packs(Protocol):
    """What a rule needs of the packer."""

    axes: TokenAxes

    def aligned(self, arg: Any, layout: Layout) -> Any: ...
    def rows(self, node: Any) -> fx.Node: ...
    def axis(self, node: Any, dim: int) -> int: ...
    def call(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node: ...
    def rearranged(self, node: fx.Node, old: Layout, new: Layout) -> fx.Node: ...
    def expanded(self, node: fx.Node, layout: Layout) -> fx.Node: ...
    def attention(self, node: fx.Node) -> fx.Node: ...


@dataclass(frozen=True)
class Rule:
    """The two halves of what is known of an operator."""

    layout: Callable[[fx.Node, TokenAxes], Layout | list[Layout]]
    pack: Callable[[fx.Node, Packs], fx.Node]


# --- one cell from one cell -------------------------------------------------------------------------


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


# --- along the other axes -----------------------------------------------------------------------------


def _first(node: fx.Node, axes: TokenAxes, at: int = 0) -> Layout:
    """The layout of the one argument, number `at`, that may have tokens."""
    layout = axes.layout(node.args[at])
    others = [n for n in node.all_input_nodes if n is not node.args[at]]
    if layout is None or any(n in axes.layouts for n in others):
        raise Unreadable("something else than its first argument has tokens")
    return layout


def _without_tokens(axes: TokenAxes, *among: Axis) -> None:
    if any(axes.tokens.has(axis) for axis in among):
        raise Unreadable("it works along the token axis")


def _through_weight(at: int) -> Rule:
    """A product with a weight: the last axis is another one afterwards."""

    def layout(node: fx.Node, axes: TokenAxes) -> Layout:
        source = _first(node, axes, at)
        _without_tokens(axes, source[-1])
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
    return axes.tokens.whole((*_first(node, axes, 1), new_axis(shape_of(node)[-1])))


def _normalised(node: fx.Node, axes: TokenAxes) -> Layout:
    """layer_norm, rms_norm: along the last axes."""
    source, sizes = _first(node, axes), node.args[1]
    assert isinstance(sizes, Sequence)
    _without_tokens(axes, *source[len(source) - len(sizes) :])
    return source


# --- calls that name axes -----------------------------------------------------------------------------


def _along(at: int, name: str, *, default: Any = None, keep: int | None = None) -> Rule:
    """A call along the axes that argument `at` (`name`) names. `keep`: where it says whether the
    axes stay, with size one; where None, they stay with the size they have in the result."""

    def dims(node: fx.Node) -> list[int]:
        given = node.args[at] if len(node.args) > at else node.kwargs.get(name, default)
        if not isinstance(given, int | list | tuple) or given in ([], ()):
            raise Unreadable("it works along all axes")
        rank = len(shape_of(_source_of(node)))
        several = [given] if isinstance(given, int) else given
        if not all(isinstance(d, int) for d in several):
            raise Unreadable("its axes are not known")
        return [d % rank for d in several if isinstance(d, int)]

    def layout(node: fx.Node, axes: TokenAxes) -> Layout | list[Layout]:
        source = _joined(node, axes)
        chosen = dims(node)
        _without_tokens(axes, *(source[d] for d in chosen))
        values = node.meta["val"]
        if isinstance(values, list | tuple):
            return [_resized(source, chosen, v.shape, axes) for v in values]
        return _resized(source, chosen, shape_of(node), axes)

    def pack(node: fx.Node, packer: Packs) -> fx.Node:
        args, kwargs = list(node.args), dict(node.kwargs)
        source = _source_of(node)
        mapped = [packer.axis(source, d) for d in dims(node)]
        given: Any = args[at] if len(args) > at else kwargs.get(name, default)
        new = mapped[0] if isinstance(given, int) else mapped
        if len(args) > at:
            args[at] = new
        else:
            kwargs[name] = new
        if isinstance(args[0], list | tuple):
            common = _joined(node, packer.axes)
            args[0] = [packer.aligned(n, _like(n, common, dims(node))) for n in args[0]]
        else:
            args[0] = packer.rows(args[0])
        return packer.call(node.target, *args, **kwargs)

    return Rule(layout, pack)


def _source_of(node: fx.Node) -> Any:
    first = node.args[0]
    return first[0] if isinstance(first, list | tuple) else first


def _joined(node: fx.Node, axes: TokenAxes) -> Layout:
    """The layout of what the call reads; of `cat`, whose tensors need not all have tokens, that of
    one that has."""
    first = node.args[0]
    if not isinstance(first, list | tuple):
        return _first(node, axes)
    found = [layout for layout in map(axes.layout, first) if layout is not None]
    alike = {tuple(axes.tokens.has(axis) for axis in layout) for layout in found}
    if len(alike) != 1:
        raise Unreadable("its operands have their tokens along different axes")
    return found[0]


def _like(node: fx.Node, layout: Layout, dims: list[int]) -> Layout:
    """`layout` for an operand that has another size along `dims`."""
    sizes = shape_of(node)
    return tuple(new_axis(sizes[i]) if i in dims else axis for i, axis in enumerate(layout))


def _resized(source: Layout, dims: list[int], shape: Sequence[Any], axes: TokenAxes) -> Layout:
    """`source` after a call along `dims` that gives a value of `shape`."""
    if len(shape) == len(source):
        axis = [new_axis(shape[i]) if i in dims else a for i, a in enumerate(source)]
        return axes.tokens.whole(tuple(axis))
    if len(shape) == len(source) - len(dims):
        return axes.tokens.whole(tuple(a for i, a in enumerate(source) if i not in dims))
    raise Unreadable("it gives axes that are not known")


def _stacked(node: fx.Node, axes: TokenAxes) -> Layout:
    source = list(_joined(node, axes))
    shape = shape_of(node)
    dim = _stack_dim(node) % len(shape)
    source.insert(dim, new_axis(shape[dim]))
    return axes.tokens.whole(tuple(source))


def _stack_dim(node: fx.Node) -> int:
    given = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    assert isinstance(given, int)
    return given


def _pack_stack(node: fx.Node, pack: Packs) -> fx.Node:
    common = _joined(node, pack.axes)
    first: Any = node.args[0]
    operands = [pack.aligned(n, common) for n in first]
    dim = _stack_dim(node) % len(shape_of(node))
    return pack.call(node.target, operands, pack.axis(node, dim))


# --- calls that only rearrange ------------------------------------------------------------------------


def _rearranged(node: fx.Node, axes: TokenAxes) -> Layout:
    return axes.tokens.whole(after(node, _first_argument(node, axes)))


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
        axis.append(new_axis(size) if is_one(old) else have)
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
    return layouts[index]


def _pack_item(node: fx.Node, pack: Packs) -> fx.Node:
    return pack.call(operator.getitem, pack.rows(node.args[0]), node.args[1])


# --- attention: from tokens to tokens of the same sequence ----------------------------------------------


def _attended(node: fx.Node, axes: TokenAxes) -> Layout | list[Layout]:
    """queries, keys and values [B, heads, L, width]."""
    query, key, value = map(axes.layout, node.args[:3])
    if query is None or key is None or value is None:
        raise Unreadable("its queries, keys and values are not all tokens")
    pair = (axes.tokens.batch, axes.tokens.token)
    for layout in (query, key, value):
        if len(layout) != 4 or (layout[0], layout[2]) != tuple((a,) for a in pair):
            raise Unreadable("its tokens are not along the usual axes")
    values = node.meta["val"]
    first = values[0] if isinstance(values, list | tuple) else values
    out = (*query[:3], new_axis(first.shape[-1]))
    return [out, query[:3]] if isinstance(values, list | tuple) else out


def _pack_attended(node: fx.Node, pack: Packs) -> fx.Node:
    return pack.attention(node)


# --- the table ----------------------------------------------------------------------------------------

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
    aten.layer_norm.default: Rule(_normalised, _pack_arg(0)),
    aten.rms_norm.default: Rule(_normalised, _pack_arg(0)),
    aten.softmax.int: _along(1, "dim"),
    aten.log_softmax.int: _along(1, "dim"),
    aten.logsumexp.default: _along(1, "dim"),
    aten.cumsum.default: _along(1, "dim"),
    aten.sum.dim_IntList: _along(1, "dim"),
    aten.mean.dim: _along(1, "dim"),
    aten.var.correction: _along(1, "dim"),
    aten.var.dim: _along(1, "dim"),
    aten.std.correction: _along(1, "dim"),
    aten.amax.default: _along(1, "dim"),
    aten.amin.default: _along(1, "dim"),
    aten.argmax.default: _along(1, "dim"),
    aten.max.dim: _along(1, "dim"),
    aten.topk.default: _along(2, "dim", default=-1),
    aten.linalg_vector_norm.default: _along(2, "dim"),
    aten.glu.default: _along(1, "dim", default=-1),
    aten.flip.default: _along(1, "dims"),
    aten.slice.Tensor: _along(1, "dim", default=0),
    aten.narrow.default: _along(1, "dim"),
    aten.select.int: _along(1, "dim"),
    aten.unbind.int: _along(1, "dim", default=0),
    aten.chunk.default: _along(2, "dim", default=0),
    aten.split.Tensor: _along(2, "dim", default=0),
    aten.split.sizes: _along(2, "dim", default=0),
    aten.split_with_sizes.default: _along(2, "dim", default=0),
    aten.index_select.default: _along(1, "dim"),
    aten.cat.default: _along(1, "dim", default=0),
    aten.stack.default: Rule(_stacked, _pack_stack),
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
