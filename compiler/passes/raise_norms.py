"""Norms that are spelled out become one call.

Shapes: [..., D]; m has size one along the last axis.

    x * rsqrt(mean(x^2) + eps) * w                      ->   rms_norm(x, [D], w, eps)
    (x - m) * rsqrt(var(x) + eps) * w + b, m = mean(x)  ->   layer_norm(x, [D], w, b, eps)

and whatever says the same: `pow`, `square` or a product, a division by `sqrt`, `var_mean`, the
variance as the mean of (x - m)^2, weights that are computed (one plus a parameter).
Law: the same numbers added up in another order. What stands before a cast to float32 or behind
one to a narrower dtype stays where it is. It must not know who needs the norms.
Next: `equate_norms.py`.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import as_int, aten, decline, fake, is_call, number
from ..options import Options
from ..report import Reason
from .attention_parts import ADD, CASTS, DIVIDE, MULTIPLY, SUBTRACT
from .contract import Outcome
from .norms import Norm, is_vector, take_place, write_norm
from .rearrange import Writer

PRECISE = (torch.float32, torch.float64)
# which argument says whether the reduced axis is kept, if it may be given by position
KEEPDIM: dict[object, int] = {aten.mean.dim: 2, aten.var.dim: 3, aten.var_mean.dim: 3}
VAR = (aten.var.correction, aten.var.dim, aten.var_mean.correction, aten.var_mean.dim)


def raise_norms(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The pass. A site is a value divided by the root of its own mean square, or of its variance,
    along the last axis."""
    outcome = Outcome()
    for node in list(graph.nodes):
        found = _normalised(node)
        if found is None:
            continue
        outcome.sites += 1
        try:
            norm = _with_affine(found)
            _veto(node, norm, facts)
            _build(graph, facts, norm)
            outcome.rewritten += 1
        except Declined as declined:
            outcome.declined.append(decline(node, declined.reason, str(declined)))
    return outcome


# --- what is spelled out ------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """The mean along the last axis of x^2, or (`centres`) of (x - mean(x))^2."""

    x: fx.Node
    centres: bool


def _normalised(node: fx.Node) -> Norm | None:
    """The norm, as yet without weight and bias, that ends in this product or division."""
    for above, below in _factors(node):
        read = _row_factor(below, divides=node.target in DIVIDE)
        if read is None:
            continue
        moment, eps = read
        value = fake(moment.x)
        width = as_int(value.shape[-1]) if value is not None and value.dim() else None
        x = _numerator(above, moment)
        if x is not None and isinstance(width, int):
            return Norm(node, x.x, width, None, None, eps, x.centres)
    return None


def _factors(node: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
    """What may be a value and what its factor in each row."""
    if not is_call(node, *MULTIPLY, *DIVIDE) or len(node.args) != 2:
        return []
    pair: tuple[Any, ...] = node.args
    if not all(isinstance(n, fx.Node) for n in pair):
        return []
    return [pair] if node.target in DIVIDE else [pair, pair[::-1]]


def _row_factor(node: fx.Node, divides: bool) -> tuple[Moment, float] | None:
    """The moment and the eps of 1 / sqrt(moment + eps), or of its inverse if it `divides`."""
    node, keeps = _kept(node)
    inside = _root(node) if divides else _inverse_root(node)
    if inside is None:
        return None
    eps = 0.0
    if is_call(inside, *ADD) and not inside.kwargs:
        numbers = [number(a) for a in inside.args[:2]]
        if sum(n is not None for n in numbers) != 1:
            return None
        eps = next(n for n in numbers if n is not None)
        moment = _moment(inside.args[numbers.index(None)], keeps)
    else:
        moment = _moment(inside, keeps)
    return None if moment is None else (moment, eps)


def _root(node: object) -> fx.Node | None:
    """v of sqrt(v)"""
    if is_call(node, aten.sqrt.default) or _is_power(node, 0.5):
        return node.args[0]  # type: ignore[attr-defined,no-any-return]
    return None


def _inverse_root(node: object) -> fx.Node | None:
    """v of 1 / sqrt(v)"""
    if is_call(node, aten.rsqrt.default) or _is_power(node, -0.5):
        return node.args[0]  # type: ignore[attr-defined,no-any-return]
    if is_call(node, aten.reciprocal.default):
        return _root(node.args[0])  # type: ignore[attr-defined]
    if is_call(node, *MULTIPLY) and number(node.args[1]) == 1:  # type: ignore[attr-defined]
        return _inverse_root(node.args[0])  # type: ignore[attr-defined]  # torch writes 1 / v so
    return None


def _is_power(node: object, exponent: float) -> bool:
    return is_call(node, aten.pow.Tensor_Scalar) and node.args[1] == exponent  # type: ignore[attr-defined]


def _kept(node: Any) -> tuple[Any, bool]:
    """What a value is computed from that has no last axis, if it gets one of size one here; else
    the value."""
    if is_call(node, aten.unsqueeze.default):
        dim, value = node.args[1], fake(node)
        if value is not None and dim % value.dim() == value.dim() - 1:
            return node.args[0], False
    return node, True


def _moment(node: object, keeps: bool) -> Moment | None:
    """The moment that `node` is, which `keeps` the last axis at size one or has dropped it."""
    if keeps:
        node, keeps = _kept(node)
    if is_call(node, aten.mean.dim):
        assert isinstance(node, fx.Node)
        squared = node.args[0]
        if not _along_last(node, keeps) or not isinstance(squared, fx.Node):
            return None
        x = _squared(squared)
        return None if x is None else _without_mean(x) or Moment(x, centres=False)
    var = node
    if is_call(node, operator.getitem) and node.args[1] == 0:  # type: ignore[attr-defined]
        var = node.args[0]  # type: ignore[attr-defined]
    if is_call(var, *VAR) and (var is node) == is_call(var, *VAR[:2]):
        assert isinstance(var, fx.Node)
        of = var.args[0]
        if _along_last(var, keeps) and _is_biased(var) and isinstance(of, fx.Node):
            return _without_mean(of) or Moment(of, centres=True)
    return None


def _squared(node: fx.Node) -> fx.Node | None:
    """x of x^2"""
    x = node.args[0] if node.args else None
    product = is_call(node, *MULTIPLY) and node.args[0] is node.args[1]
    if product or _is_power(node, 2) or is_call(node, aten.square.default):
        return x if isinstance(x, fx.Node) else None
    return None


def _without_mean(node: fx.Node) -> Moment | None:
    """The second moment of x about its mean, if `node` is x - mean(x)."""
    if not is_call(node, *SUBTRACT) or node.kwargs:
        return None
    given: tuple[Any, ...] = node.args
    x, mean = given[:2]
    if not isinstance(x, fx.Node) or not isinstance(mean, fx.Node):
        return None
    mean, keeps = _kept(mean)
    if is_call(mean, operator.getitem) and mean.args[1] == 1:
        mean = mean.args[0]
        if not is_call(mean, *VAR[2:]):
            return None
    elif not is_call(mean, aten.mean.dim):
        return None
    assert isinstance(mean, fx.Node)
    same = mean.args[0] is x and _along_last(mean, keeps)
    return Moment(x, centres=True) if same else None


def _numerator(node: fx.Node, moment: Moment) -> Moment | None:
    """What is normalised: what the moment is of, if `node` is that, or with its mean taken off, or
    what that was cast from."""
    if moment.centres:
        own = _without_mean(node)
        return moment if own is not None and own.x is moment.x else None
    if node is moment.x:
        return moment
    cast = moment.x
    return moment if is_call(cast, *CASTS) and cast.args[0] is node else None


def _along_last(node: fx.Node, keeps: bool) -> bool:
    """Whether a reduction runs along the last axis alone, and keeps it as wanted."""
    given: tuple[Any, ...] = node.args
    value = fake(given[0])
    dims: Any = given[1] if len(given) > 1 else node.kwargs.get("dim")
    at = KEEPDIM.get(node.target)
    kept: Any = given[at] if at is not None and len(given) > at else node.kwargs.get("keepdim")
    if value is None or not isinstance(dims, list | tuple) or len(dims) != 1:
        return False
    last: bool = dims[0] % value.dim() == value.dim() - 1
    return last and bool(kept) == keeps and node.kwargs.get("dtype") is None


def _is_biased(node: fx.Node) -> bool:
    """Whether a variance divides by D."""
    if is_call(node, aten.var.dim, aten.var_mean.dim):
        return len(node.args) > 2 and node.args[2] is False
    return bool(node.kwargs.get("correction", 1) == 0)


def _with_affine(norm: Norm) -> Norm:
    """`norm` with the weight and bias that its readers multiply and add, if nobody else reads."""
    value = fake(norm.node)
    assert value is not None
    for field, targets in (("weight", MULTIPLY), ("bias", ADD)):
        reader = next(iter(norm.node.users)) if len(norm.node.users) == 1 else None
        if reader is None or not is_call(reader, *targets) or reader.kwargs:
            continue
        others: list[Any] = [a for a in reader.args if a is not norm.node]
        if len(others) == 1 and is_vector(others[0], norm.width, value.dtype):
            norm = replace(norm, node=reader, **{field: others[0]})
    return norm


# --- veto and build -----------------------------------------------------------------------------


def _veto(first: fx.Node, norm: Norm, facts: Facts) -> None:
    """Raises Declined if the two sides of the law could differ here."""
    before, after = fake(norm.x), fake(norm.node)
    assert before is not None
    assert after is not None
    if before.dtype not in PRECISE or after.dtype != before.dtype:
        reason = f"it is computed in {before.dtype}, not in float32 or float64 all through"
        raise Declined(Reason.DTYPES, reason)
    inside = _between(norm)
    read = [n for n in (norm.x, norm.weight, norm.bias) if n is not None]
    if any(map(facts.is_written, (*inside, *read))):
        raise Declined(Reason.MUTATED, "a value inside it, or what it reads, is written in place")
    if not facts.same_gradient_mode(inside):
        raise Declined(Reason.GRADIENT_MODE, "gradients are switched on or off inside it")
    if len({facts.autocast_region(n) for n in inside}) > 1:
        raise Declined(Reason.AUTOCAST, "an autocast region begins or ends inside it")


def _between(norm: Norm) -> list[fx.Node]:
    """The calls from x to the result."""
    found: dict[fx.Node, None] = {}
    ends = {norm.x, norm.weight, norm.bias}
    if is_call(norm.x, *CASTS):
        ends.add(norm.x.args[0])  # type: ignore[arg-type]
    pending = [norm.node]
    while pending:
        node = pending.pop()
        if node not in found and node not in ends:
            found[node] = None
            pending += [n for n in node.all_input_nodes if n.op == "call_function"]
    return list(found)


def _build(graph: fx.Graph, facts: Facts, norm: Norm) -> None:
    write, before = Writer(graph, facts, norm.node), fake(norm.node)
    made = write_norm(write, norm)
    assert before is not None
    value = fake(made)
    assert value is not None
    if value.dtype != before.dtype:
        write.discard()
        raise Declined(Reason.AUTOCAST, f"autocast would compute it in {value.dtype}")
    take_place(write, norm.node, made)
