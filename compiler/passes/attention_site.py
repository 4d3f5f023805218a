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
from typing import Any

from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import aten, fake, is_call, number, readers
from ..report import Reason
from .attention_parts import (
    CASTS,
    DIVIDE,
    MULTIPLY,
    Bias,
    Gathered,
    Site,
    Value,
    as_node,
    unknown,
    value_of,
)
from .attention_scores import read_scores, term_of
from .axes import (
    ORDERS,
    REARRANGES,
    SAME_ORDER,
    Axis,
    Layout,
    Unreadable,
    after,
    atoms,
    before,
    flat,
    new_axis,
    new_layout,
)
from .products import PRODUCTS, Operand, read_product


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
    gathered = Gathered()
    scores, at = read_scores(as_node(softmax.args[0]), layout, chain, gathered, facts)
    query, key, width = _first_product(scores, at, keys, gathered)
    value, result = _second_product(out, probabilities, keys)
    batch, queries = _batch_and_queries(scores, at, key, value, keys)
    scale = gathered.scale * trace(query, facts, scaled=True) * trace(key, facts, scaled=True)
    trace(value, facts, scaled=False)
    return Site(
        scores,
        out,
        query,
        key,
        value,
        result,
        keys,
        width,
        queries,
        batch,
        scale,
        dropout,
        gathered.terms,
        gathered.factors,
        chain,
    )


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
            raise unknown(user, "probabilities")
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


# --- the product of queries and keys ----------------------------------------------------------


def _first_product(
    scores: fx.Node, layout: Layout, keys: Axis, found: Gathered
) -> tuple[Value, Value, Axis]:
    """Queries, keys and the axis that they are multiplied over."""
    product = read_product(scores)
    if product.added is not None and product.beta != 0:
        value = term_of(product.added, scores, layout, found)
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
    scores: fx.Node, layout: Layout, key: Value, value: Value, keys: Axis
) -> tuple[Axis, Axis]:
    """The axes that are gone through one by one, and the axis of the queries: the last that neither
    keys nor values have, in a matrix product one of its own two."""
    shared = set(flat(key.layout)) | set(flat(value.layout))
    candidates = layout if is_call(scores, aten.einsum.default) else layout[-2:]
    own = [axis for axis in candidates if atoms(axis) and not set(atoms(axis)) & shared]
    queries: Axis = own[-1] if own else ()
    rest = [a for a in flat(layout) if a not in atoms(keys) and a not in atoms(queries)]
    return tuple(rest), queries


# --- from an operand back to where its values are computed ------------------------------------


def trace(value: Value, facts: Facts, scaled: bool) -> float:
    """Follow an operand back through views, copies and (`scaled`) scales; the scale found there.

    `value` becomes what was found. The walk ends where memory is written, or gradients are cut.
    """
    scale = 1.0
    while True:
        node, times = value.node, 1.0
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
            times = 1 / factor if is_call(node, *DIVIDE) else factor
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
        scale *= times


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
