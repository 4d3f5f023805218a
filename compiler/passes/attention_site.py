"""An attention site as it stands in the graph, read from its softmax outwards.

    scores = scale * q @ k (+ bias) (hidden where not visible)      p = dropout(softmax(scores))
    out = p @ v

in any order, layout and spelling of these. Everything is read with `axes.py`: after reading, the
layouts of q, k, v and out name the same atoms, whatever views lay between them.
It must not decide whether a site may be rewritten (`attention.py` does); it raises Declined at the
first thing that is not known.
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
from .axes import (
    EXPANDS,
    ORDERS,
    REARRANGES,
    SAME_ORDER,
    Axis,
    Layout,
    Unreadable,
    after,
    aligned,
    atoms,
    before,
    flat,
    new_axis,
    new_layout,
)
from .products import PRODUCTS, Operand, read_product

SOFTMAX = (aten.softmax.int, aten.special_softmax.default)
CASTS = (aten.to.dtype, aten.type_as.default, aten.to.dtype_layout, aten._to_copy.default)
CASTS = (*CASTS, aten.to.device)
MULTIPLY = (aten.mul.Tensor, aten.mul.Scalar)
DIVIDE = (aten.div.Tensor, aten.div.Scalar)
ADD = (aten.add.Tensor, aten.add.Scalar)
SUBTRACT = (aten.sub.Tensor, aten.sub.Scalar)
WHERE = (aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf)
FILL = (aten.masked_fill.Scalar, aten.masked_fill.Tensor)

# A fill or bias from here on hides its key: exp(fill - score) is zero in every dtype for scores
# whose magnitude is below 9,000.
HIDES = -1e4


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
class Factor:
    """A tensor that the scores are multiplied with, or divided by: constant along the keys."""

    value: Value
    divides: bool


@dataclass
class Site:
    """One attention. `terms` are outermost first; `chain` is every node between q @ k and out."""

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
    scale: float = 1.0
    dropout: float = 0.0
    terms: list[Bias | Mask] = field(default_factory=list)
    factors: list[Factor] = field(default_factory=list)
    chain: list[fx.Node] = field(default_factory=list)


@dataclass
class _Scores:
    """What is gathered on the way from the softmax back to the product."""

    scale: float = 1.0
    terms: list[Bias | Mask] = field(default_factory=list)
    factors: list[Factor] = field(default_factory=list)


def read_site(softmax: fx.Node, facts: Facts) -> Site:
    """The site around a softmax. Raises Declined at the first thing that is not known here."""
    try:
        return _read(softmax, facts)
    except Unreadable as error:
        raise Declined(Reason.NOT_A_PRODUCT, f"its axes cannot be followed: {error}") from error


def _read(softmax: fx.Node, facts: Facts) -> Site:
    shape = value_of(softmax).shape
    axis = softmax.args[1]
    layout = new_layout(shape)
    if not isinstance(axis, int):
        raise Declined(Reason.OTHER_AXIS, f"softmax over axis {axis}")
    keys = layout[axis % len(shape)]
    chain = [softmax]
    dropout, out, probabilities = _forward(softmax, layout, chain)
    gathered = _Scores()
    scores, at = _backward(_node(softmax.args[0]), layout, chain, gathered, facts)
    query, key, width = _first_product(scores, at, keys, gathered)
    value, result = _second_product(out, probabilities, keys)
    batch, queries = _batch_and_queries(scores, at, query, key, value, keys)
    site = Site(scores, out, query, key, value, result, keys, width, queries, batch)
    site.scale, site.terms, site.factors = gathered.scale, gathered.terms, gathered.factors
    site.dropout, site.chain = dropout, chain
    site.scale *= trace(site.query, facts, scaled=True)
    site.scale *= trace(site.key, facts, scaled=True)
    trace(site.value, facts, scaled=False)
    return site


# --- from the softmax to the product with the values ----------------------------------------------


def _forward(
    softmax: fx.Node, layout: Layout, chain: list[fx.Node]
) -> tuple[float, fx.Node, Value]:
    """Through casts, dropout and views; the dropout, the product and its operand."""
    node, dropout = softmax, 0.0
    while True:
        users = readers(node)
        if len(users) != 1:
            raise Declined(Reason.OTHER_READERS, "the probabilities are read elsewhere too")
        (user,) = users
        if is_call(user, *PRODUCTS):
            return dropout, user, Value(node, layout)
        if is_call(user, aten.dropout.default):
            p, on = user.args[1:3]
            if not isinstance(p, float) or not isinstance(on, bool) or dropout or p >= 1.0:
                raise Declined(Reason.DROPOUT, f"dropout with p={p}")
            dropout = p if on else 0.0
        elif is_call(user, *SAME_ORDER, *ORDERS):
            layout = after(user, layout)
        elif not is_call(user, *CASTS):
            raise _unknown(user, "probabilities")
        node = user
        chain.append(node)


def _second_product(out: fx.Node, p: Value, keys: Axis) -> tuple[Value, Layout]:
    """The values, and the layout of the result. Their sum must be over the keys and only these."""
    product = read_product(out)
    if product.added is not None or product.scale != 1.0:
        raise Declined(Reason.UNKNOWN_OP, "something is added to the product with the values")
    first, second = product.left, product.right
    if first.node is second.node:
        raise Declined(Reason.NOT_A_PRODUCT, "the probabilities are both factors")
    mine, other = (first, second) if first.node is p.node else (second, first)
    named = dict(zip(mine.labels, p.layout, strict=True))
    summed = {a for label in product.summed for a in atoms(named[label])}
    if summed != set(atoms(keys)) or not keys:
        raise Declined(Reason.OTHER_AXIS, "softmax is over another axis than the sum with v")
    value = _operand(other, named)
    return value, tuple(named.get(label, ()) if label else () for label in product.value)


# --- from the softmax back to the product of queries and keys ---------------------------------------


def _backward(
    node: fx.Node, layout: Layout, chain: list[fx.Node], found: _Scores, facts: Facts
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
            inner = _read_mask(node, layout, found)
        elif not is_call(node, *CASTS):
            raise _unknown(node, "scores")
        chain.append(node)
        if not is_call(node, *REARRANGES):
            layout = aligned(layout, value_of(node).shape, value_of(_node(inner)).shape)
        node = _node(inner)


def _read_sum(node: fx.Node, layout: Layout, found: _Scores) -> Any:
    left, right = node.args[:2]
    subtracts = is_call(node, *SUBTRACT)
    times = node.kwargs.get("alpha", node.args[2] if len(node.args) > 2 else 1)
    if not isinstance(times, int | float):
        raise Declined(Reason.SCALE_NOT_CONSTANT, "a factor known only at run time")
    inner, other = (left, right) if leads_to_product(left) else (right, left)
    if inner is right and inner is not left and (subtracts or times != 1):
        raise Declined(Reason.UNKNOWN_OP, "the scores are subtracted from something")
    if leads_to_product(left) and leads_to_product(right) and is_call(right, *PRODUCTS):
        inner, other = (right, left) if not is_call(left, *PRODUCTS) else (left, right)
        if inner is right and (subtracts or times != 1):
            raise Declined(Reason.UNKNOWN_OP, "the scores are subtracted from something")
    plain = number(other)
    if plain is not None:
        if not math.isfinite(plain):
            raise Declined(Reason.UNKNOWN_OP, f"{plain} is added to the scores")
        if not found.terms:  # a number added to all scores does not change softmax
            return inner
        raise Declined(Reason.UNKNOWN_OP, "a number is added to the scores before the mask")
    sign = -1.0 if subtracts else 1.0
    value = _term(other, node, layout, found)
    found.terms.append(Bias(value, sign * times * found.scale))
    return inner


def _read_scale(node: fx.Node, layout: Layout, found: _Scores, facts: Facts) -> Any:
    left, right = node.args[:2]
    divides = is_call(node, *DIVIDE)
    if node.kwargs or len(node.args) > 2:
        raise Declined(Reason.UNKNOWN_OP, "a division that rounds")
    factor = number(right)
    if factor is None and not divides and number(left) is not None:
        left, right, factor = right, left, number(left)
    for side in (left, right):
        if isinstance(side, fx.Node) and side is not left and facts.is_written(side):
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
    value = _term(right, node, layout, found)
    found.factors.append(Factor(value, divides))
    return left


def _read_mask(node: fx.Node, layout: Layout, found: _Scores) -> Any:
    if is_call(node, *FILL):
        inner, condition, other = node.args[:3]
        hides = True
    else:
        condition, first, second = node.args[:3]
        hides = not leads_to_product(first)
        inner, other = (second, first) if hides else (first, second)
    if not leads_to_product(inner):
        raise Declined(Reason.UNKNOWN_OP, "where() without scores")
    fill = constant_of(other)
    if fill is None:
        raise Declined(Reason.MASK_NOT_PROVEN, "hidden scores get a value that is not a number")
    fill = torch.tensor(fill, dtype=torch.float64).to(value_of(node).dtype).item() * found.scale
    if not fill <= HIDES:
        text = f"hidden scores become {fill:g}, which does not hide them (from {HIDES:g} on it does)"
        raise Declined(Reason.MASK_NOT_PROVEN, text)
    found.terms.append(Mask(_term(condition, node, layout, found), hides, fill))
    return inner


def _term(other: Any, node: fx.Node, layout: Layout, found: _Scores) -> Value:
    if found.factors:
        raise Declined(Reason.SCALE_NOT_CONSTANT, "a tensor scales what has been added or hidden")
    if not isinstance(other, fx.Node) or fake(other) is None:
        raise Declined(Reason.UNKNOWN_OP, f"{other} is combined with the scores")
    value = value_of(other)
    return Value(other, aligned(layout, value_of(node).shape, value.shape))


def _first_product(
    scores: fx.Node, layout: Layout, keys: Axis, found: _Scores
) -> tuple[Value, Value, Axis]:
    """Queries, keys and the axis that they are multiplied over."""
    product = read_product(scores)
    if product.added is not None and product.beta != 0:
        value = _term(product.added, scores, layout, found)
        found.terms.append(Bias(value, product.beta * found.scale))
    if not product.scale > 0:
        raise Declined(Reason.SCALE_NOT_CONSTANT, f"the scores are scaled by {product.scale}")
    found.scale *= product.scale
    named = {n: axis for n, axis in zip(product.value, layout, strict=True) if n is not None}
    summed = sorted(map(str, product.summed))
    left = _operand(product.left, named)
    right = _operand(product.right, named)
    width = tuple(a for label in summed for a in named[label])
    seen = [set(flat(v.layout)) >= set(atoms(keys)) for v in (left, right)]
    touched = [bool(set(flat(v.layout)) & set(atoms(keys))) for v in (left, right)]
    if not keys or all(touched) or not any(seen):
        raise Declined(Reason.OTHER_AXIS, "softmax is not over an axis of the keys alone")
    return (right, left, width) if seen[0] else (left, right, width)


def _operand(operand: Operand, named: dict[Any, Axis]) -> Value:
    """The operand with the axes that its labels have, new ones for labels seen first here."""
    shape = value_of(operand.node).shape
    for label, size in zip(operand.labels, shape, strict=True):
        if label is not None and label not in named:
            named[label] = new_axis(size)
    axes = (named[n] if n is not None else () for n in operand.labels)
    return Value(operand.node, tuple(axes))


def _batch_and_queries(
    scores: fx.Node, layout: Layout, query: Value, key: Value, value: Value, keys: Axis
) -> tuple[Axis, Axis]:
    """The axes that are gone through one by one, and the axis of the queries."""
    shared = set(flat(key.layout)) | set(flat(value.layout))
    product = read_product(scores)
    own = [axis for axis in layout if atoms(axis) and not set(atoms(axis)) & shared]
    queries: Axis = own[-1] if own else ()
    if product.value[-2:] in (("m", "n"),):  # a matrix product says which axis it is
        at = -2 if query.node is product.left.node else -1
        if query.node is product.left.node and key.node is product.left.node:
            at = -2
        queries = layout[at] if not set(atoms(layout[at])) & shared else ()
    rest = [a for a in flat(layout) if a not in atoms(keys) and a not in atoms(queries)]
    return tuple(rest), queries


# --- from an operand back to where its values are computed -------------------------------------------


def trace(value: Value, facts: Facts, scaled: bool) -> float:
    """Follow an operand back through views, copies and (`scaled`) scales; the scale found there.

    `value` becomes what was found. The walk ends where memory is written, or gradients are cut.
    """
    scale = 1.0
    while True:
        node = value.node
        if facts.is_written(node) or facts.cuts_gradients(node):
            return scale
        if is_call(node, *REARRANGES):
            try:
                layout = before(node, value.layout)
            except Unreadable:
                return scale
        elif scaled and is_call(node, *MULTIPLY, *DIVIDE) and not node.kwargs:
            factor = number(node.args[1])
            source = node.args[0]
            if factor is None or not isinstance(source, fx.Node) or len(node.args) > 2:
                return scale
            same = value_of(source).dtype == value_of(node).dtype
            if not math.isfinite(factor) or factor <= 0 or not same:
                return scale
            scale *= 1 / factor if is_call(node, *DIVIDE) else factor
            layout = value.layout
        else:
            return scale
        source = node.args[0]
        if not isinstance(source, fx.Node) or facts.is_written(source):
            return scale
        # autograd would save what the caller can write to before the backward pass
        kept = facts.is_view_of_input(source) or facts.reaches_output(source)
        if facts.records_gradients and kept and not facts.may_alias(source, node):
            return scale
        value.node, value.layout = source, layout


# --- questions --------------------------------------------------------------------------------------


def readers(node: fx.Node) -> list[fx.Node]:
    """The users that read more of a value than its shape and dtype."""
    shape_only = (*EXPANDS, aten.type_as.default, aten.view_as.default, aten.reshape_as.default)
    return [u for u in node.users if not (is_call(u, *shape_only) and u.args[0] is not node)]


def constant_of(arg: Any) -> float | None:
    """The number that a 0-d (or expanded) constant holds."""
    plain = number(arg)
    if plain is not None:
        return plain
    through = (*EXPANDS, *CASTS, aten.lift_fresh_copy.default, aten.detach.default)
    through = (*through, aten.detach_.default, aten.alias.default, aten.clone.default)
    while isinstance(arg, fx.Node) and is_call(arg, *through):
        arg = arg.args[0]
    if is_call(arg, aten.scalar_tensor.default):
        return number(arg.args[0])
    if is_call(arg, aten.full.default):
        return number(arg.args[1])
    value = fake(arg) if isinstance(arg, fx.Node) and arg.op == "get_attr" else None
    constant = getattr(value, "constant", None)
    if isinstance(constant, torch.Tensor) and constant.numel() == 1:
        return float(constant.item())
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


def is_site(softmax: fx.Node) -> bool:
    """Whether matrix products stand on both sides within a few steps: then it is a site."""
    return _reaches(softmax, forward=True) and _reaches(softmax, forward=False)


def _reaches(start: fx.Node, forward: bool, steps: int = 12) -> bool:
    front = {start}
    for _ in range(steps):
        front = {n for f in front for n in (f.users if forward else f.all_input_nodes)}
        if any(is_call(n, *PRODUCTS) for n in front):
            return True
        front = {n for n in front if (v := fake(n)) is not None and v.dim() >= 2}
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

