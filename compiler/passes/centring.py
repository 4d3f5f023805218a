"""How a value comes out without its mean: by the weights it is written with, where it has some.

Shapes: x [..., N], W [D, N], b [D], s [D]; P x = x - mean(x) along the axis that is D wide.

    P (W x + b) = (P W) x + P b             a linear, a convolution, a table
    P (s * (W x + b)) = (P s W) x + P s b   layer scale behind it

Nothing is added to a call: in inference P W is computed once (`hoist_weights.py`), in training it
is differentiated. It must not know which values are to be without a mean: see `mean_free.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any

from torch import fx

from ..facts import Facts
from ..graph import aten, fake, is_call, same_size
from .attention_parts import MULTIPLY
from .axes import is_one, shape_of
from .norms import centred, read_norm
from .rearrange import Writer

Weights = list[
    tuple[int, int]
]  # which arguments are the weights, and which of their axes is D wide
CONVOLUTIONS = tuple(
    getattr(call, form)
    for call in (aten.conv1d, aten.conv2d, aten.conv3d)
    for form in ("default", "padding")
)


def _linear(node: fx.Node, axis: int, last: int) -> Weights | None:
    return [(1, 0), *_bias(node, 2)] if axis == last and len(shape_of(node.args[1])) == 2 else None


def _addmm(node: fx.Node, axis: int, last: int) -> Weights | None:
    return [(2, 1), *_bias(node, 0)] if axis == last else None


def _product(node: fx.Node, axis: int, last: int) -> Weights | None:
    return [(1, 1)] if axis == last and len(shape_of(node.args[1])) == 2 else None


def _convolution(node: fx.Node, axis: int, last: int) -> Weights | None:
    """Of all channels: a group's output does not depend on the weights of the others."""
    is_channel = axis == last + 2 - len(shape_of(node.args[1]))
    return [(1, 0), *_bias(node, 2)] if is_channel and node.args[6:] in ((), (1,)) else None


def _bias(node: fx.Node, at: int) -> Weights:
    """What is added, along its last axis, if anything is."""
    bias = node.args[at] if len(node.args) > at else None
    return [] if bias is None else [(at, len(shape_of(bias)) - 1)]


def _table(node: fx.Node, axis: int, last: int) -> Weights | None:
    return [(0, 1)] if axis == last else None


WRITERS: dict[object, Callable[[fx.Node, int, int], Weights | None]] = {
    aten.linear.default: _linear,
    aten.addmm.default: _addmm,
    **dict.fromkeys((aten.mm.default, aten.matmul.default), _product),
    **dict.fromkeys(CONVOLUTIONS, _convolution),
}
# A table is as long as the vocabulary: it is centred only where weights are changed for good.
TABLES: dict[object, Callable[[fx.Node, int, int], Weights | None]] = {
    aten.embedding.default: _table
}


def writes_with(
    node: fx.Node, axis: int, known: Container[fx.Node], *, tables: bool = False
) -> Weights | None:
    """The weights that decide the mean of `node` along `axis`, if there are such; `known` are the
    values that depend on weights only."""
    rule = WRITERS.get(node.target) or (TABLES.get(node.target) if tables else None)
    if rule is None or node.op != "call_function" or set(node.kwargs) - {"alpha", "beta"}:
        return None
    found = rule(node, axis, len(shape_of(node)) - 1)
    if found is None:
        return None
    width = shape_of(node)[axis]
    whole = all(dim >= 0 and same_size([shape_of(node.args[i])[dim]], [width]) for i, dim in found)
    return found if whole and all(node.args[i] in known for i, _ in found) else None


def has_no_mean(node: fx.Node, axis: int) -> bool:
    """Whether `node` is a norm that has taken the mean off, and put none back."""
    norm = read_norm(node)
    plain = norm is not None and norm.centres and norm.weight is None and norm.bias is None
    return plain and axis == len(shape_of(node)) - 1


def scaled_writer(
    node: fx.Node, axis: int, known: Container[fx.Node], facts: Facts
) -> tuple[fx.Node, fx.Node] | None:
    """The linear and the scale of a layer scale: a product of what weights write, read by nobody
    else, and of a weight that varies along `axis` alone."""
    if not is_call(node, *MULTIPLY) or len(node.all_input_nodes) != 2:
        return None
    pair: tuple[Any, ...] = node.args
    for writer, scale in (pair, pair[::-1]):
        if writer in known or scale not in known or set(writer.users) != {node}:
            continue
        values = fake(writer), fake(scale), fake(node)
        if len({v.dtype for v in values if v is not None}) > 1 or None in values:
            continue
        if len(shape_of(writer)) != len(shape_of(node)):
            continue
        if writes_with(writer, axis, known) is None or not _lies_along(scale, node, axis):
            continue
        moved = facts.written_between(writer.all_input_nodes, writer, node)
        alike = facts.autocast_region(writer) == facts.autocast_region(node)
        if moved is None and alike and facts.same_gradient_mode([writer, node]):
            return writer, scale
    return None


def _lies_along(scale: fx.Node, node: fx.Node, axis: int) -> bool:
    shape, full = shape_of(scale), shape_of(node)
    own = axis - len(full) + len(shape)
    return own >= 0 and all(is_one(n) for i, n in enumerate(shape) if i != own)


def centre_writer(node: fx.Node, axis: int, weights: Weights, write: Writer) -> None:
    """Let `node` be written without its mean."""
    for i, dim in weights:
        node.update_arg(i, centred(write, node.args[i], dim))  # type: ignore[arg-type]


def scaled_args(writer: fx.Node, scale: fx.Node, weights: Weights, write: Writer) -> list[Any]:
    """The arguments with which `writer` gives its value times `scale`."""
    args: list[Any] = list(writer.args)
    for i, dim in weights:
        shape = [1] * len(shape_of(args[i]))
        shape[dim] = -1
        along = write.call(aten.reshape.default, scale, shape)
        args[i] = write.call(aten.mul.Tensor, args[i], along)
    return args
