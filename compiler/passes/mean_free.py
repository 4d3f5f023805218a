"""Who needs the mean of a value along an axis, and which calls keep a value without one.

Shapes: D wide along the axis in question; P x = x - mean(x) along it.

    LN(x) = LN(P x) = RMS(P x)      P (a + b) = P a + P b      P (s * x) = s * P x, s alike along D

Backward: a value is *indifferent* along an axis if every reader is a LayerNorm over that axis, or a
call that commutes with P whose own value is indifferent. So whatever is added to it, alike along
the axis, no output can tell. That holds in any graph of such calls: parallel branches, several
streams, shared norms. It must not know how P is applied where a value is written (`centring.py`),
nor what becomes of the norms (`equate_norms.py`).
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ..facts import Facts, draws_random
from ..graph import READ_SHAPES, aten, fake, is_call, number, op_name, readers, where
from .attention_parts import ADD, CASTS, DIVIDE, FILL, MULTIPLY, SUBTRACT
from .axes import REARRANGES, Unreadable, before, is_one, new_layout, shape_of
from .identities import DROPOUTS
from .norms import read_norm

Along = tuple[fx.Node, int]  # a value and one of its axes, counted from the first


@dataclass
class MeanFree:
    """`axis` of every value that is indifferent along one; `operands` are what a commuting call
    that gives such a value applies P to; `why` names for any other who reads its mean."""

    axis: dict[fx.Node, int] = field(default_factory=dict)
    operands: dict[fx.Node, list[Along]] = field(default_factory=dict)
    why: dict[fx.Node, str] = field(default_factory=dict)


def mean_free(graph: fx.Graph, facts: Facts) -> MeanFree:
    """The facts of `graph`: one walk from its end to its beginning."""
    found = MeanFree()
    for node in reversed(graph.nodes):
        if node.op == "output" or not _is_float(node.meta.get("val")):
            continue
        try:
            found.axis[node] = _asked(node, found, facts)
        except Unreadable as reason:
            found.why[node] = str(reason)
            continue
        with contextlib.suppress(Unreadable):  # it does not commute: P is applied to its value
            found.operands[node] = operands(node, found.axis[node])
    return found


def _is_float(value: Any) -> bool:
    first = value[0] if isinstance(value, list | tuple) and value else value
    return isinstance(first, torch.Tensor) and first.is_floating_point()


def _asked(node: fx.Node, found: MeanFree, facts: Facts) -> int:
    """The axis along which all readers are indifferent to the mean of `node`."""
    asked: set[int] = set()
    for reader in readers(node):
        if reader in found.operands:
            own = [axis for operand, axis in found.operands[reader] if operand is node]
            if len(own) < _times_read(node, reader):  # it is the scale, say
                raise Unreadable(_name(reader))
            asked |= set(own)
            continue
        norm = read_norm(reader)
        is_read = norm is not None and norm.centres and norm.x is node
        if not is_read or _times_read(node, reader) > 1:
            passes_on = found.why.get(reader) if reader.target in COMMUTES else None
            raise Unreadable(passes_on or _name(reader))
        asked.add(len(shape_of(node)) - 1)
    if not asked:
        raise Unreadable("nothing")
    if len(asked) > 1:
        raise Unreadable("norms along two of its axes")
    if facts.is_written(node):
        raise Unreadable("what is written to its memory")
    return asked.pop()


def _times_read(node: fx.Node, reader: fx.Node) -> int:
    found: list[fx.Node] = []
    fx.node.map_arg((reader.args, reader.kwargs), found.append)
    return found.count(node) - (is_call(reader, *READ_SHAPES) and node in reader.args[1:])


def _name(node: fx.Node) -> str:
    """What a report calls the reader of a mean."""
    if node.op == "output":
        return "the caller, who gets it"
    place = where(node)
    return f"`{op_name(node)}`" + (f" in {place}" if place else "")


# --- calls that commute with P ------------------------------------------------------------------


def operands(node: fx.Node, axis: int) -> list[Along]:
    """What P may be applied to in place of `node`. Raises Unreadable if it does not commute."""
    rule = COMMUTES.get(node.target) if node.op == "call_function" else None
    if rule is None or draws_random(node):
        raise Unreadable("it does not commute")
    return rule(node, axis)


def _aligned(node: fx.Node, operand: fx.Node, axis: int) -> int | None:
    """The axis of a broadcast operand that becomes `axis`; None if it is alike along it."""
    shape, full = shape_of(operand), shape_of(node)
    own = axis - len(full) + len(shape)
    if own < 0 or (is_one(shape[own]) and not is_one(full[axis])):
        return None
    return own


def _sum(node: fx.Node, axis: int) -> list[Along]:
    """add, sub: both have to be without a mean."""
    found = []
    for arg in node.args[:2]:
        own = _aligned(node, arg, axis) if isinstance(arg, fx.Node) else None
        if own is None:
            raise Unreadable("it adds the same number along the axis")
        found.append((arg, own))
    return found  # type: ignore[return-value]


def _product(node: fx.Node, axis: int) -> list[Along]:
    """mul, div: one is alike along the axis."""
    found: list[Along] = []
    for arg in node.args[:2]:
        own = _aligned(node, arg, axis) if isinstance(arg, fx.Node) and is_tensor(arg) else None
        if own is not None:
            found.append((arg, own))  # type: ignore[arg-type]
    only_above = node.target not in DIVIDE or (bool(found) and found[0][0] is node.args[0])
    if len(found) != 1 or not only_above or node.kwargs:
        raise Unreadable("it scales along the axis")
    return found


def is_tensor(node: fx.Node) -> bool:
    """Whether a node gives one tensor (sizes are nodes too)."""
    return fake(node) is not None


def _same(node: fx.Node, axis: int) -> list[Along]:
    return [(node.args[0], axis)]  # type: ignore[list-item]


def _item(node: fx.Node, axis: int) -> list[Along]:
    """One of the values of a split."""
    if not is_call(node.args[0], *SPLITS):
        raise Unreadable("it is one of several results")
    return _same(node, axis)


def _cast(node: fx.Node, axis: int) -> list[Along]:
    """A cast between floating point formats rounds, no more."""
    if not _is_float(fake(node.args[0])):  # type: ignore[arg-type]
        raise Unreadable("it makes numbers of something else")
    return _same(node, axis)


def _rearranged(node: fx.Node, axis: int) -> list[Along]:
    layout = new_layout(shape_of(node))
    if not layout[axis]:
        raise Unreadable("an axis of size one")
    source = before(node, layout)
    if layout[axis] not in source:
        raise Unreadable("it cuts the axis")
    return [(node.args[0], source.index(layout[axis]))]  # type: ignore[list-item]


def _along(node: fx.Node, at: int, rank: int, default: int = 0) -> int:
    dim: Any = node.args[at] if len(node.args) > at else node.kwargs.get("dim", default)
    return dim % rank  # type: ignore[no-any-return]


def _joined(node: fx.Node, axis: int) -> list[Along]:
    """cat along another axis."""
    values: Any = node.args[0]
    if _along(node, 1, len(shape_of(node))) == axis:
        raise Unreadable("it joins along the axis")
    if any(len(shape_of(n)) != len(shape_of(node)) for n in values):
        raise Unreadable("it joins values of other ranks")
    return [(n, axis) for n in values]


def _stacked(node: fx.Node, axis: int) -> list[Along]:
    values: Any = node.args[0]
    dim = _along(node, 1, len(shape_of(node)))
    if dim == axis:
        raise Unreadable("it stacks along the axis")
    return [(n, axis - (dim < axis)) for n in values]


def _picked(node: fx.Node, axis: int) -> list[Along]:
    """A part along another axis, which stays (slice) or goes (select, unbind)."""
    source: Any = node.args[0]
    goes = is_call(node, aten.select.int)
    dim = _along(node, 1, len(shape_of(source)))
    own = axis + (goes and dim <= axis)
    if dim == own:
        raise Unreadable("it takes a part of the axis")
    return [(source, own)]


def _parts(node: fx.Node, axis: int) -> list[Along]:
    """split, chunk: several parts along another axis."""
    source: Any = node.args[0]
    if _along(node, 2, len(shape_of(source))) == axis:
        raise Unreadable("it cuts the axis")
    return [(source, axis)]


def _indexed(node: fx.Node, axis: int) -> list[Along]:
    """x[i], x[i, j]: of the leading axes; the last one stays."""
    source, indices = node.args[:2]
    rank = len(shape_of(source))
    if axis != len(shape_of(node)) - 1 or not isinstance(indices, Sequence):
        raise Unreadable("it is indexed along the axis")
    if sum(map(_axes_indexed, indices)) >= rank:
        raise Unreadable("it is indexed along the axis")
    return [(source, rank - 1)]  # type: ignore[list-item]


def _axes_indexed(index: Any) -> int:
    """How many axes one index takes: a mask as many as it has."""
    value = fake(index) if isinstance(index, fx.Node) else None
    is_mask = value is not None and value.dtype in (torch.bool, torch.uint8)
    return value.dim() if value is not None and is_mask else 1


def _reduced(node: fx.Node, axis: int) -> list[Along]:
    """sum, mean over other axes."""
    given: tuple[Any, ...] = node.args
    source, dims = given[:2]
    rank = len(shape_of(source))
    if not isinstance(dims, Sequence) or not dims:
        raise Unreadable("it reduces all axes")
    gone = {d % rank for d in dims}
    keeps = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim")
    left = [i for i in range(rank) if keeps or i not in gone]
    if left[axis] in gone:
        raise Unreadable("it reduces the axis")
    return [(source, left[axis])]


def _chosen(node: fx.Node, axis: int) -> list[Along]:
    """where(condition, x, y), masked_fill(x, mask, y): the choice is alike along the axis, and each
    of the two is without a mean, as zero is."""
    fills = is_call(node, *FILL)
    values = [node.args[0], node.args[2]] if fills else list(node.args[1:3])
    condition: Any = node.args[1] if fills else node.args[0]
    if _aligned(node, condition, axis) is not None:
        raise Unreadable("it chooses along the axis")
    found: list[Along] = []
    for value in values:
        own = _aligned(node, value, axis) if isinstance(value, fx.Node) else None
        if own is not None:
            found.append((value, own))  # type: ignore[arg-type]
        elif number(value) != 0:
            raise Unreadable("it chooses a number that is not zero")
    return found


SPLITS = (aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default)
Commutes = Callable[[fx.Node, int], list[Along]]

COMMUTES: dict[object, Commutes] = {
    **dict.fromkeys((*ADD, *SUBTRACT), _sum),
    **dict.fromkeys((*MULTIPLY, *DIVIDE), _product),
    **dict.fromkeys((aten.neg.default, aten.detach.default, *DROPOUTS), _same),
    **dict.fromkeys(CASTS, _cast),
    **dict.fromkeys(REARRANGES, _rearranged),
    **dict.fromkeys((aten.slice.Tensor, aten.select.int, aten.index_select.default), _picked),
    **dict.fromkeys(SPLITS, _parts),
    **dict.fromkeys((aten.mean.dim, aten.sum.dim_IntList), _reduced),
    **dict.fromkeys((aten.where.self, *FILL), _chosen),
    aten.index.Tensor: _indexed,
    aten.cat.default: _joined,
    aten.stack.default: _stacked,
    operator.getitem: _item,
}
