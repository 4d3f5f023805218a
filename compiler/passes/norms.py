"""Norms along the last axis, by whatever operator, as one noun.

Shapes: [..., D] in and out, weight and bias [D], D a number that is known.

    centres:   y = weight * (x - mean) / sqrt(mean((x - mean)^2) + eps) + bias     LayerNorm
    else:      y = weight * x / sqrt(mean(x^2) + eps) + bias                       RMSNorm

It must not know why a pass asks. Next: `raise_norms.py` finds those that are spelled out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ..errors import Declined
from ..graph import aten, fake, is_call, same_layout
from ..report import Reason
from .rearrange import Writer

HALF = (torch.float16, torch.bfloat16)  # formats in which torch computes norms in float32
NORMS = (aten.layer_norm.default, aten.rms_norm.default)


@dataclass(frozen=True)
class Norm:
    """What a call in NORMS computes. `eps` is None where torch chooses it by the dtype."""

    node: fx.Node
    x: fx.Node
    width: int
    weight: fx.Node | None
    bias: fx.Node | None
    eps: float | None
    centres: bool


def read_norm(node: fx.Node) -> Norm | None:
    """The norm along the last axis, and no other, that `node` is."""
    if not is_call(node, *NORMS) or node.kwargs:
        return None
    given: tuple[Any, ...] = node.args
    x, sizes, *rest = given
    if not isinstance(x, fx.Node) or not isinstance(sizes, list | tuple) or len(sizes) != 1:
        return None
    if not isinstance(sizes[0], int) or fake(x) is None:
        return None
    if node.target is aten.layer_norm.default:
        weight, bias, eps = [*rest, *[None, None, 1e-5][len(rest) :]][:3]
        return Norm(node, x, sizes[0], weight, bias, eps, centres=True)
    weight, eps = [*rest, *[None, None][len(rest) :]][:2]
    return Norm(node, x, sizes[0], weight, None, eps, centres=False)


def veto_dtypes(norm: Norm) -> None:
    """Raises Declined if torch casts inside of the norm."""
    parts = (norm.node, norm.x, norm.weight, norm.bias)
    dtypes = {n.meta["val"].dtype for n in parts if n is not None}
    if len(dtypes) > 1:
        raise Declined(Reason.DTYPES, f"the dtypes differ: {sorted(map(str, dtypes))}")


def layer_norms(graph: fx.Graph) -> list[Norm]:
    """The norms of a graph that take a mean off, in order."""
    return [n for n in map(read_norm, graph.nodes) if n is not None and n.centres]


def write_norm(write: Writer, norm: Norm) -> fx.Node:
    """The calls that compute `norm`."""
    x, sizes, eps = norm.x, [norm.width], norm.eps
    if norm.centres:
        return write.new(aten.layer_norm.default, x, sizes, norm.weight, norm.bias, eps)
    y = write.new(aten.rms_norm.default, x, sizes, norm.weight, eps)
    return y if norm.bias is None else write.new(aten.add.Tensor, y, norm.bias)


def take_place(write: Writer, node: fx.Node, made: fx.Node) -> None:
    """Let the readers of the norm `node` read `made`, laid out as they know it."""
    before, value = fake(node), fake(made)
    assert before is not None
    assert value is not None
    if not same_layout(before, value):
        made = write.like(made, before)
    node.replace_all_uses_with(made)
    node.graph.erase_node(node)


def centred(write: Writer, node: fx.Node, axis: int) -> fx.Node:
    """`node` without its mean along `axis`. A mean rounded to half precision would leave an offset
    in all of it."""
    dtype = node.meta["val"].dtype
    if dtype in HALF:
        wide = centred(write, write.call(aten.to.dtype, node, torch.float32), axis)
        return write.call(aten.to.dtype, wide, dtype)
    return write.call(aten.sub.Tensor, node, write.call(aten.mean.dim, node, [axis], True))


def behind(node: fx.Node) -> fx.Node:
    """What stands behind `node`, and behind the inputs of the graph if it is one."""
    found = node.next
    while found.op == "placeholder":
        found = found.next
    return found


def is_vector(arg: object, width: int, dtype: torch.dtype) -> bool:
    """Whether an argument is a tensor [width] of this dtype, as weights and biases of norms are."""
    value = fake(arg) if isinstance(arg, fx.Node) else None
    return value is not None and list(value.shape) == [width] and value.dtype == dtype
