"""The fused call of a site, in the simplest form that is right there.

Shapes: B batch, H heads, G heads of keys and values, L queries, S keys, K and V widths.

    nothing masked, or causal           scaled_dot_product_attention, told so
    masked, or to be differentiated     formwright::attention with the plan of the mask (CPU)
    dropout, another device, export     scaled_dot_product_attention with a mask, if it is proven

It must not know how a site was found. Next: `attention_mask.py` for the mask, `../operators/`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import aten, same_size
from ..operators import ATTENTION, MASK_PLAN
from ..report import Reason
from .attention_mask import (
    Masking,
    constant_plan,
    hidden_by_bias,
    is_causal,
    is_open,
    shows_every_row,
)
from .attention_parts import HIDES_UNCHECKED, Site, value_of
from .finite import is_finite
from .rearrange import Writer
from .subgraph import can_be_derived

UNPROVEN = (
    "a query may see no key: with -inf its row would be NaN before and not after, and its gradient "
    "is lost in the fused backward"
)


@dataclass
class Shared:
    """What the sites of one graph share. `looked_at` are the masks that each call must look at."""

    facts: Facts
    by_call: bool
    looked_at: dict[fx.Node, None] = field(default_factory=dict)
    made: dict[Any, fx.Node] = field(default_factory=dict)
    plans: dict[Any, torch.Tensor | None] = field(default_factory=dict)


def fused_call(
    site: Site,
    operands: tuple[fx.Node, fx.Node, fx.Node],
    masking: Masking,
    write: Writer,
    call: Shared,
) -> fx.Node:
    """The fused call in its simplest form that is right here."""
    query, key, value = operands
    facts, causal = call.facts, False
    plan = _plan_now(masking, call) if masking.nodes else None
    if plan is not None:
        keys = value_of(key).shape[2]
        if is_open(plan, keys):
            masking = Masking()
        elif is_causal(plan, keys) and (masking.mask is None or masking.fill <= HIDES_UNCHECKED):
            masking, causal = Masking(), True
    on_cpu = value_of(query).device.type == "cpu"
    ours = call.by_call and on_cpu and not site.dropout
    widths = value_of(query).shape[-1], value_of(value).shape[-1]
    if ours and (masking.nodes or facts.records_gradients or not same_size(*[[w] for w in widths])):
        if masking.folded and facts.records_gradients:
            _prove(_one_mask(masking, write), plan, call)
        return _our_call(site, operands, masking, causal, write, facts)
    if masking.mask is not None and masking.fill > HIDES_UNCHECKED:
        text = f"hidden scores become {masking.fill:g}: whether that hides them, no call can check"
        raise Declined(Reason.MASK_NOT_PROVEN, text)
    mask = _one_mask(masking, write) if masking.nodes else None
    if mask is not None:
        if facts.autocast_dtype(site.out) is not None:
            raise Declined(Reason.AUTOCAST, "autocast would cast the mask")
        if value_of(mask).dtype not in (torch.bool, value_of(query).dtype):
            have = value_of(mask).dtype
            raise Declined(
                Reason.DTYPES, f"the mask is {have}, the queries are {value_of(query).dtype}"
            )
        if not is_finite(mask, facts) or facts.records_gradients:
            _prove(mask, plan, call)
        mask = _own(mask, write, facts)
    args: tuple[Any, ...] = (query, key, value)
    if mask is not None or site.dropout or causal:
        args = (*args, mask)
    if site.dropout or causal:
        args = (*args, site.dropout)
    if causal:
        args = (*args, True)
    kwargs: dict[str, Any] = {"scale": site.scale}
    if not same_size(value_of(query).shape[:2], value_of(key).shape[:2]):
        kwargs["enable_gqa"] = True
    return write.new(aten.scaled_dot_product_attention.default, *args, **kwargs)


def _one_mask(masking: Masking, write: Writer) -> fx.Node:
    """Bias and mask as the one that the standard operator takes."""
    if masking.mask is None:
        assert masking.bias is not None
        return masking.bias
    dtype = value_of(masking.bias).dtype if masking.bias is not None else masking.dtype
    if masking.fill != float("-inf") and dtype is not torch.float16:
        return hidden_by_bias(masking, torch.finfo(dtype).min, write)
    return hidden_by_bias(masking, float("-inf"), write)


def _plan_now(masking: Masking, call: Shared) -> torch.Tensor | None:
    key = (masking.bias, masking.mask, masking.fill)
    if key not in call.plans:
        call.plans[key] = constant_plan(masking, call.facts.records_gradients, call.facts)
    return call.plans[key]


def _prove(mask: fx.Node, plan: torch.Tensor | None, call: Shared) -> None:
    """Raises Declined if a query may see no key: else it is proven, or each call will look."""
    if plan is not None and shows_every_row(plan):
        return
    if plan is not None or not call.by_call or not can_be_derived(mask, call.facts):
        raise Declined(Reason.MASK_NOT_PROVEN, UNPROVEN)
    call.looked_at[mask] = None


def _our_call(
    site: Site,
    operands: tuple[fx.Node, fx.Node, fx.Node],
    masking: Masking,
    causal: bool,
    write: Writer,
    facts: Facts,
) -> fx.Node:
    records = facts.records_gradients
    bias = None if masking.bias is None else _own(masking.bias, write, facts)
    mask = None if masking.mask is None else _own(masking.mask, write, facts)
    plan = write.call(MASK_PLAN, bias, mask, masking.fill, records) if masking.nodes else None
    both = write.new(ATTENTION, *operands, bias, mask, plan, site.scale, masking.fill, causal)
    return write.item(both, 0)


def _own(mask: fx.Node, write: Writer, facts: Facts) -> fx.Node:
    """The mask, or a copy of it where the caller could write to it before the backward pass: the
    fused call saves it, as the addition did not."""
    if not facts.records_gradients:
        return mask
    if not (facts.is_view_of_input(mask) or facts.reaches_output(mask)):
        return mask
    return write.call(aten.clone.default, mask)
