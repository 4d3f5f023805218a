"""Whether a value is proven to be finite everywhere, from how the graph builds it.

An additive mask that may hold -inf is another function after fusion: a row of -inf gives NaN from
softmax and zero or NaN from a fused kernel. It must not look at real values.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from ..facts import Facts
from ..graph import aten, fake, is_call, number

# Calls whose value holds nothing but values of their first argument.
REARRANGES = (
    aten.expand.default,
    aten.view.default,
    aten.reshape.default,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.slice.Tensor,
    aten.select.int,
    aten.transpose.int,
    aten.permute.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.detach.default,
)
ZEROS_AND_ONES = (
    aten.zeros.default,
    aten.ones.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.zeros_like.default,
    aten.ones_like.default,
)
# where(condition, a, b) in its four spellings: both branches have to be finite
WHERE = (
    aten.where.self,
    aten.where.ScalarSelf,
    aten.where.ScalarOther,
    aten.where.Scalar,
)


def is_finite(arg: Any, facts: Facts) -> bool:
    """True only if no element of `arg` can be infinite or NaN."""
    value = number(arg)
    if isinstance(arg, fx.Node) and facts.is_written(arg):
        return False
    if value is not None:
        return math.isfinite(value)
    if not isinstance(arg, fx.Node):
        return False
    if is_call(arg, *ZEROS_AND_ONES):
        return True
    if is_call(arg, aten.full.default, aten.new_full.default):
        return is_finite(arg.args[-1], facts) and _fits(arg.args[-1], arg)
    if is_call(arg, *REARRANGES):
        return is_finite(arg.args[0], facts)
    if is_call(arg, *WHERE):
        return all(is_finite(a, facts) and _fits(a, arg) for a in arg.args[1:3])
    if is_call(arg, aten.masked_fill.Scalar):
        filled, _, fill = arg.args[:3]
        return is_finite(filled, facts) and is_finite(fill, facts) and _fits(fill, arg)
    return False


def _fits(arg: Any, into: fx.Node) -> bool:
    """Whether a number stays finite in the dtype of the value that it goes into."""
    fill, value = number(arg), fake(into)
    if fill is None or value is None:
        return True
    return not value.dtype.is_floating_point or abs(fill) <= torch.finfo(value.dtype).max
