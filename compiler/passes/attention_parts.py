"""The parts of an attention site, and the calls that they are written with.

It must not know how they are found: `attention_scores.py` and `attention_site.py` do that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ..errors import Declined
from ..graph import aten, fake
from ..report import Reason
from .axes import Axis, Layout

SOFTMAX = (aten.softmax.int, aten.special_softmax.default)
CASTS = (
    aten.to.dtype,
    aten.to.device,
    aten.to.dtype_layout,
    aten._to_copy.default,
    aten.type_as.default,
)
MULTIPLY = (aten.mul.Tensor, aten.mul.Scalar)
DIVIDE = (aten.div.Tensor, aten.div.Scalar)
ADD = (aten.add.Tensor, aten.add.Scalar)
SUBTRACT = (aten.sub.Tensor, aten.sub.Scalar)
WHERE = (
    aten.where.self,
    aten.where.Scalar,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
)
FILL = (aten.masked_fill.Scalar, aten.masked_fill.Tensor)

# A fill from here on may hide its key: exp(fill - score) is zero in every dtype unless the scores
# are as large. Our operator checks that they are not, in each call; the standard one cannot, so for
# it the fill has to be beyond all scores.
HIDES = -1e4
HIDES_UNCHECKED = -1e8


@dataclass
class Value:
    """A node and what its axes are."""

    node: fx.Node
    layout: Layout


@dataclass
class Bias:
    """Something added to the scores, times a number."""

    value: Value
    times: float = 1.0


@dataclass
class Mask:
    """Scores are replaced by `fill` where `value` is `hides`."""

    value: Value
    hides: bool
    fill: float


@dataclass
class Site:
    """One attention. `terms` are outermost first, `factors` are tensors that multiply the scores
    (constant along the keys), `chain` is every node between q @ k and out."""

    scores: fx.Node
    out: fx.Node
    query: Value
    key: Value
    value: Value
    result: Layout
    keys: Axis
    width: Axis
    queries: Axis
    batch: Axis
    scale: float
    dropout: float
    terms: list[Bias | Mask]
    factors: list[Value]
    chain: list[fx.Node]


@dataclass
class Gathered:
    """What is gathered on the way from the softmax back to the product."""

    scale: float = 1.0
    terms: list[Bias | Mask] = field(default_factory=list)
    factors: list[Value] = field(default_factory=list)


FORMS = {
    "tanh": "soft-capping: the fused kernels of this device cannot say it",
    "cat": "something is put beside them (an attention sink?): no fused kernel here takes it",
    "slice": "a part of them is taken (an attention sink?): no fused kernel here takes it",
}


def unknown(node: fx.Node, what: str) -> Declined:
    name = getattr(node.target, "__name__", str(node.target))
    for form, text in FORMS.items():
        if name.startswith(form):
            return Declined(Reason.UNKNOWN_OP, f"{name} on the {what}: {text}")
    return Declined(Reason.UNKNOWN_OP, f"{name} on the {what} is not known to this pass")


def as_node(arg: Any) -> fx.Node:
    if not isinstance(arg, fx.Node):
        raise Declined(Reason.UNKNOWN_OP, f"a number ({arg}) stands where a tensor is expected")
    return arg


def value_of(node: fx.Node) -> torch.Tensor:
    """The fake tensor of a node that has one."""
    value = fake(node)
    if value is None:
        raise Declined(Reason.UNKNOWN_OP, f"{node.name} is not one tensor")
    return value
