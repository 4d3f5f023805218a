"""What is added to the scores of a site and what is hidden, as one bias and one mask.

Shapes: B batch, H heads, L queries, S keys; bias and mask are [B|1, H|1, L|1, S].

    scores = where(mask, scale * q @ k.T + bias, fill)

Biases are summed; masks of one fill are joined; a bias outside of a mask takes the mask in as large
negative numbers. It must not know what the fused call is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import aten, is_symbolic
from ..operators.mask_plan import EXACT, HIDES, PLAIN, mask_plan
from ..report import Reason
from .attention_parts import Bias, Site, Value, value_of
from .attention_site import trace
from .axes import Axis
from .rearrange import Writer
from .subgraph import ancestors, extract, runs_ahead


@dataclass
class Masking:
    """The bias and mask of a site as nodes. `folded`: a mask went into the bias, so where no key
    is visible the value is the original's, and the gradient is not."""

    bias: fx.Node | None = None
    mask: fx.Node | None = None
    fill: float = -math.inf
    folded: bool = False
    dtype: torch.dtype = torch.float32

    @property
    def nodes(self) -> list[fx.Node]:
        """What there is of the two."""
        return [n for n in (self.bias, self.mask) if n is not None]


def read_masking(site: Site, write: Writer, groups: Sequence[Axis], facts: Facts) -> Masking:
    """The terms of a site, innermost first, made one. Raises Declined where that is not exact."""
    found = Masking(dtype=value_of(site.scores).dtype)
    for term in reversed(site.terms):
        node = placed(term.value, write, groups, facts)
        if isinstance(term, Bias):
            if found.mask is not None:
                _fold(found, write)
            _add(found, node, term, write)
        else:
            visible = write.call(aten.logical_not.default, node) if term.hides else node
            if found.mask is None:
                found.mask, found.fill = visible, term.fill
            elif found.fill == term.fill:
                found.mask = write.call(aten.logical_and.default, found.mask, visible)
            else:
                _fold(found, write)
                found.mask, found.fill = visible, term.fill
    return found


def placed(value: Value, write: Writer, groups: Sequence[Axis], facts: Facts) -> fx.Node:
    """A term of the scores as [B|1, H|1, L|1, S], without what only repeats it."""
    value = Value(value.node, value.layout)
    trace(value, facts, scaled=False)
    if not facts.is_written(value.node):
        value = Value(*write.narrow(value.node, value.layout))
    return write.to_groups(value.node, value.layout, groups, whole=(3,))


def _add(found: Masking, node: fx.Node, term: Bias, write: Writer) -> None:
    value = value_of(node)
    if not (value.is_floating_point() or value.dtype == torch.int64):
        raise Declined(Reason.DTYPES, f"{value.dtype} is added to the scores")
    if not value.is_floating_point():
        node = write.call(aten.to.dtype, node, found.dtype)
    if term.times != 1.0:
        node = write.call(aten.mul.Tensor, node, term.times)
    found.bias = node if found.bias is None else write.call(aten.add.Tensor, found.bias, node)


def _fold(found: Masking, write: Writer) -> None:
    if found.fill > HIDES:
        raise Declined(
            Reason.MASK_NOT_PROVEN,
            f"something is added to scores hidden with {found.fill:g}; from {HIDES:g} on that "
            "is known to change nothing",
        )
    found.bias = hidden_by_bias(found, found.fill, write)
    found.mask, found.folded = None, True


def hidden_by_bias(found: Masking, fill: float, write: Writer) -> fx.Node:
    """Bias and mask as one tensor to add, `fill` where hidden."""
    dtype = found.dtype if found.bias is None else value_of(found.bias).dtype
    lowest = torch.finfo(dtype).min
    fill = fill if math.isinf(fill) else max(fill, lowest)
    inner: Any = found.bias
    if inner is None:
        device = value_of(found.nodes[0]).device
        inner = write.call(aten.full.default, (), 0.0, dtype=dtype, device=device)
    return write.call(aten.where.ScalarOther, found.mask, inner, fill)


# --- masks that are the same in all calls ---------------------------------------------------------


def constant_plan(found: Masking, records: bool, facts: Facts) -> torch.Tensor | None:
    """The plan of a mask and bias that no call changes, looked at now; None if calls may differ."""
    behind = [n for node in found.nodes for n in ancestors(node)]
    if any(n.op != "call_function" for n in behind) or not runs_ahead(behind, facts):
        return None
    if any(is_symbolic(value_of(n)) for n in found.nodes):
        return None
    compute, _ = extract(facts.graph, facts, found.nodes)
    with torch.no_grad():
        values = [v.cpu() for v in compute()]
        bias = values.pop(0) if found.bias is not None else None
        mask = values[0] if values else None
        plan: torch.Tensor = mask_plan(bias, mask, found.fill, records)
        return plan


def is_open(plan: torch.Tensor, keys: int) -> bool:
    """Whether every query sees every key and nothing is added."""
    first, last, kind = plan.unbind(-1)
    return bool(((kind == PLAIN) & (first == 0) & (last == keys)).all())


def is_causal(plan: torch.Tensor, keys: int) -> bool:
    """Whether query i sees the keys up to i, of as many."""
    first, last, kind = plan.unbind(-1)
    steps = torch.arange(1, plan.shape[-2] + 1)
    square = plan.shape[-2] == keys
    return square and bool(((kind == PLAIN) & (first == 0) & (last == steps)).all())


def shows_every_row(plan: torch.Tensor) -> bool:
    """Whether no query is without keys."""
    return bool((plan[..., 2] != EXACT).all())
