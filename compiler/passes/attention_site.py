"""An attention site as it stands in the graph, read from its softmax outwards.

    dropout(softmax(q @ k.T * scale + mask)) @ v

It must not decide whether a site may be rewritten (`attention.py` does); it raises Declined at the
first thing that this form does not know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import aten, fake, is_call, number
from ..report import Reason

SOFTMAX = (aten.softmax.int,)
PRODUCT = (aten.matmul.default, aten.bmm.default)
CASTS = (aten.to.dtype,)


@dataclass
class Site:
    """One attention as read off the graph. `chain` is every node between `scores` and `out`."""

    scores: fx.Node
    query: fx.Node
    key_t: fx.Node
    value: fx.Node
    out: fx.Node
    scale: float = 1.0
    mask: fx.Node | None = None
    dropout: float = 0.0
    chain: list[fx.Node] = field(default_factory=list)


def read_site(softmax: fx.Node, facts: Facts) -> Site:
    """The site around a softmax. Raises Declined at the first thing that is not known here."""
    rank = value_of(softmax).dim()
    if softmax.args[1] not in (-1, rank - 1):
        raise Declined(Reason.OTHER_AXIS, f"softmax over axis {softmax.args[1]}, not over the keys")
    chain = [softmax]
    dropout, out = _forward(softmax, chain)
    scale, mask, scores = _backward(_node(softmax.args[0]), chain, facts)
    query, key_t = _node(scores.args[0]), _node(scores.args[1])
    value = _node(out.args[1])
    return Site(scores, query, key_t, value, out, scale, mask, dropout, chain)


def _forward(softmax: fx.Node, chain: list[fx.Node]) -> tuple[float, fx.Node]:
    """From the softmax through casts and dropout to the product with the values."""
    node, dropout = softmax, 0.0
    while True:
        if len(node.users) != 1:
            raise Declined(Reason.OTHER_READERS, "the probabilities are read elsewhere too")
        (reader,) = node.users
        if is_call(reader, *PRODUCT):
            if reader.args[0] is not node or reader.args[1] is node:
                raise Declined(Reason.NOT_A_PRODUCT, "the probabilities are the right factor")
            return dropout, reader
        if is_call(reader, aten.dropout.default):
            p, on = reader.args[1:3]
            if not isinstance(p, float) or not isinstance(on, bool) or dropout or p >= 1.0:
                raise Declined(Reason.DROPOUT, f"dropout with p={p}")
            dropout = p if on else 0.0
        elif not is_call(reader, *CASTS):
            raise _unknown(reader, "probabilities")
        node = reader
        chain.append(node)


def _backward(
    node: fx.Node, chain: list[fx.Node], facts: Facts
) -> tuple[float, fx.Node | None, fx.Node]:
    """From the softmax's input back through casts, one mask and scales to the product q @ k.T."""
    scale = 1.0
    mask: fx.Node | None = None
    while True:
        if len(node.users) != 1:
            raise Declined(Reason.OTHER_READERS, "the scores are read elsewhere too")
        if is_call(node, *PRODUCT):
            return scale, mask, node
        if is_call(node, aten.add.Tensor):
            left, right = node.args[:2]
            if mask is not None or scale != 1.0 or node.kwargs.get("alpha", 1) != 1:
                raise Declined(Reason.UNKNOWN_OP, "two additions, or a scale behind the mask")
            inner, other = (left, right) if _leads_to_product(left) else (right, left)
            if not isinstance(other, fx.Node) or fake(other) is None:
                raise Declined(Reason.UNKNOWN_OP, "a number is added to the scores")
            mask = other
        elif is_call(node, aten.mul.Tensor, aten.mul.Scalar):
            inner, factor = _operand_and_number(node, facts)
            scale *= factor
        elif is_call(node, aten.div.Tensor, aten.div.Scalar) and not node.kwargs:
            inner, factor = _operand_and_number(node, facts, commutes=False)
            scale /= factor
        elif is_call(node, *CASTS):
            inner = node.args[0]
        else:
            raise _unknown(node, "scores")
        chain.append(node)
        node = _node(inner)


def _operand_and_number(node: fx.Node, facts: Facts, commutes: bool = True) -> tuple[Any, float]:
    left, right = node.args[:2]
    value = number(right)
    if value is None and commutes:
        left, right, value = right, left, number(left)
    if value is None or not isinstance(left, fx.Node):
        raise Declined(Reason.SCALE_NOT_CONSTANT, "the scores are scaled by a tensor")
    if isinstance(right, fx.Node) and facts.is_written(right):
        raise Declined(Reason.MUTATED, "the scale is written in place")
    if not math.isfinite(value) or value <= 0:
        raise Declined(Reason.SCALE_NOT_CONSTANT, f"the scores are scaled by {value}")
    return left, value


def _leads_to_product(node: object) -> bool:
    """Whether scores may come from here: a product behind scales, casts and additions."""
    while isinstance(node, fx.Node) and not is_call(node, *PRODUCT):
        if not is_call(node, aten.mul.Tensor, aten.div.Tensor, aten.add.Tensor, *CASTS):
            return False
        operands = [a for a in node.args[:2] if isinstance(a, fx.Node)]
        if len(operands) == 2:
            return any(_leads_to_product(a) for a in operands)
        node = operands[0] if operands else None
    return isinstance(node, fx.Node)


def is_site(softmax: fx.Node) -> bool:
    """Whether matrix products stand on both sides within a few steps: then it is a site."""
    return _reaches(softmax, forward=True) and _reaches(softmax, forward=False)


def _reaches(start: fx.Node, forward: bool, steps: int = 12) -> bool:
    front = {start}
    for _ in range(steps):
        front = {n for f in front for n in (f.users if forward else f.all_input_nodes)}
        if any(is_call(n, *PRODUCT, aten.einsum.default, aten.baddbmm.default) for n in front):
            return True
        front = {n for n in front if (v := fake(n)) is not None and v.dim() >= 3}
    return False


def _unknown(node: fx.Node, what: str) -> Declined:
    name = getattr(node.target, "__name__", str(node.target))
    return Declined(Reason.UNKNOWN_OP, f"{name} on the {what} is not known to this pass")


def _node(arg: Any) -> fx.Node:
    if not isinstance(arg, fx.Node):
        raise Declined(Reason.UNKNOWN_OP, f"a number ({arg}) stands where a tensor is expected")
    return arg


def value_of(node: fx.Node) -> torch.Tensor:
    """The fake tensor of a node that has one."""
    value = fake(node)
    if value is None:
        raise Declined(Reason.UNKNOWN_OP, f"{node.name} is not one tensor")
    return value
