"""From the softmax back to the product of queries and keys: scales, biases, masks, casts, views.

    scores = where(mask, scale * q @ k + bias, fill)      in any order and spelling

It must not know what comes after the softmax. Next: `attention_site.py`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import aten, fake, is_call, number, readers
from ..report import Reason
from .attention_parts import (
    ADD,
    CASTS,
    DIVIDE,
    FILL,
    HIDES,
    MULTIPLY,
    SUBTRACT,
    WHERE,
    Bias,
    Gathered,
    Mask,
    Value,
    as_node,
    unknown,
    value_of,
)
from .axes import EXPANDS, REARRANGES, Layout, aligned, before
from .products import PRODUCTS


def read_scores(
    node: fx.Node, layout: Layout, chain: list[fx.Node], found: Gathered, facts: Facts
) -> tuple[fx.Node, Layout]:
    """Through casts, views, scales, biases and masks; the product and its layout."""
    while True:
        if len(readers(node)) != 1:
            raise Declined(Reason.OTHER_READERS, "the scores are read elsewhere too")
        if is_call(node, *PRODUCTS):
            return node, layout
        inner: Any = node.args[0] if node.args else None
        if is_call(node, *REARRANGES):
            layout = before(node, layout)
        elif is_call(node, *ADD, *SUBTRACT):
            inner = _read_sum(node, layout, found)
        elif is_call(node, *MULTIPLY, *DIVIDE):
            inner = _read_scale(node, layout, found, facts)
        elif is_call(node, *WHERE, *FILL):
            inner = _read_mask(node, layout, found, facts)
        elif not is_call(node, *CASTS):
            raise unknown(node, "scores")
        chain.append(node)
        if not is_call(node, *REARRANGES):
            layout = aligned(layout, value_of(node).shape, value_of(as_node(inner)).shape)
        node = as_node(inner)


def _read_sum(node: fx.Node, layout: Layout, found: Gathered) -> Any:
    left, right = node.args[:2]
    subtracts = is_call(node, *SUBTRACT)
    times = node.kwargs.get("alpha", node.args[2] if len(node.args) > 2 else 1)
    if not isinstance(times, int | float):
        raise Declined(Reason.SCALE_NOT_CONSTANT, "a factor known only at run time")
    from_left, from_right = leads_to_product(left), leads_to_product(right)
    if not from_left and not from_right:
        text = "what is added to is not a product of queries and keys alone (soft-capping, say)"
        raise Declined(Reason.UNKNOWN_OP, text)
    nearer = is_call(right, *PRODUCTS) and not is_call(left, *PRODUCTS)
    inner, other = (right, left) if nearer or not from_left else (left, right)
    if inner is not left and (subtracts or times != 1):
        raise Declined(Reason.UNKNOWN_OP, "the scores are subtracted from something")
    plain = number(other)
    if plain is not None:
        if not math.isfinite(plain):
            raise Declined(Reason.UNKNOWN_OP, f"{plain} is added to the scores")
        if not found.terms:  # a number added to all scores does not change softmax
            return inner
        raise Declined(Reason.UNKNOWN_OP, "a number is added to the scores before the mask")
    sign = -1.0 if subtracts else 1.0
    value = term_of(other, node, layout, found)
    found.terms.append(Bias(value, sign * times * found.scale))
    return inner


def _read_scale(node: fx.Node, layout: Layout, found: Gathered, facts: Facts) -> Any:
    left, right = node.args[:2]
    divides = is_call(node, *DIVIDE)
    if node.kwargs or len(node.args) > 2:
        raise Declined(Reason.UNKNOWN_OP, "a division that rounds")
    factor = number(right)
    if factor is None and not divides and number(left) is not None:
        left, right, factor = right, left, number(left)
    if isinstance(right, fx.Node) and right is not left and facts.is_written(right):
        raise Declined(Reason.MUTATED, "the scale is written in place")
    if factor is not None and isinstance(left, fx.Node):
        if not math.isfinite(factor) or factor <= 0:
            raise Declined(Reason.SCALE_NOT_CONSTANT, f"the scores are scaled by {factor}")
        found.scale *= 1 / factor if divides else factor
        return left
    if not leads_to_product(left):
        if divides or not leads_to_product(right):
            raise Declined(Reason.UNKNOWN_OP, "the scores divide something")
        left, right = right, left
    if isinstance(right, fx.Node) and fake(right) is None:
        raise Declined(Reason.SCALE_NOT_CONSTANT, "the scale is a number known in the call only")
    if divides:
        raise Declined(Reason.SCALE_NOT_CONSTANT, "the scores are divided by a tensor: by zero?")
    found.factors.append(term_of(right, node, layout, found))
    return left


def _read_mask(node: fx.Node, layout: Layout, found: Gathered, facts: Facts) -> Any:
    if is_call(node, *FILL):
        inner, condition, other = node.args[:3]
        hides = True
    else:
        condition, first, second = node.args[:3]
        hides = not leads_to_product(first)
        inner, other = (second, first) if hides else (first, second)
    if not leads_to_product(inner):
        raise Declined(Reason.UNKNOWN_OP, "where() without scores")
    fill = constant_of(other, facts)
    if fill is None:
        raise Declined(Reason.MASK_NOT_PROVEN, "hidden scores get a value that is not a number")
    fill = torch.tensor(fill, dtype=torch.float64).to(value_of(node).dtype).item() * found.scale
    if not fill <= HIDES:
        text = (
            f"hidden scores become {fill:g}, which does not hide them (from {HIDES:g} on it does)"
        )
        raise Declined(Reason.MASK_NOT_PROVEN, text)
    found.terms.append(Mask(term_of(condition, node, layout, found), hides, fill))
    return inner


def term_of(other: Any, node: fx.Node, layout: Layout, found: Gathered) -> Value:
    if found.factors:
        raise Declined(Reason.SCALE_NOT_CONSTANT, "a tensor scales what has been added or hidden")
    if not isinstance(other, fx.Node) or fake(other) is None:
        raise Declined(Reason.UNKNOWN_OP, f"{other} is combined with the scores")
    value = value_of(other)
    return Value(other, aligned(layout, value_of(node).shape, value.shape))


# --- questions --------------------------------------------------------------------------------


COPIES = (
    aten.lift_fresh_copy.default,
    aten.detach.default,
    aten.detach_.default,
    aten.alias.default,
    aten.clone.default,
)


def constant_of(arg: Any, facts: Facts) -> float | None:
    """The number that a 0-d (or expanded) constant holds."""
    if isinstance(arg, fx.Node) and facts.is_written(arg):
        return None
    plain = number(arg)
    if plain is not None:
        return plain
    while isinstance(arg, fx.Node) and is_call(arg, *EXPANDS, *CASTS, *COPIES):
        arg = arg.args[0]
    if is_call(arg, aten.scalar_tensor.default):
        return number(arg.args[0])
    if is_call(arg, aten.full.default):
        return number(arg.args[1])
    if isinstance(arg, fx.Node) and isinstance(arg.meta.get("constant"), int | float):
        return float(arg.meta["constant"])
    return number(arg)


def leads_to_product(node: object) -> bool:
    """Whether scores may come from here: a product behind scales, casts, masks and additions."""
    known = (*MULTIPLY, *DIVIDE, *ADD, *SUBTRACT, *CASTS, *REARRANGES, *WHERE, *FILL)
    stack, seen = [node], set()
    while stack:
        at = stack.pop()
        if is_call(at, *PRODUCTS):
            return True
        if isinstance(at, fx.Node) and at not in seen and is_call(at, *known):
            seen.add(at)
            first = at.args[1:3] if is_call(at, *WHERE) else at.args[:1]
            both = at.args[:2] if is_call(at, *MULTIPLY, *ADD, *SUBTRACT) else first
            stack.extend(both)
    return False
