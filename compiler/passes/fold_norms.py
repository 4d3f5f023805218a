"""Weight and bias of a norm move into the linears that read it.

Shapes: n [..., D] is normalised, g and b [D], W [N, D], c [N], s a number.

    W (s * (g * n + b)) + c   =   (s W diag(g)) n + (c + s W b)

The number is that of LayerNorm Scaling (1 / sqrt(layer), "The Curse of Depth", arXiv 2502.05795).
Every reader has to be a linear with weights, through views that keep the axis. Tied weights are
folded per use: the table of an embedding stays. Law: exact, gradients of W, g and b included. In
inference the new weights are computed once (`hoist_weights.py`), in training in each step. It must
not know which norms were LayerNorms.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace
from typing import Any

from torch import fx

from ..errors import Declined
from ..facts import Facts
from ..graph import aten, decline, is_call, number, op_name, readers, where
from ..options import Options
from ..report import Reason
from .attention_parts import DIVIDE, MULTIPLY
from .axes import REARRANGES, Unreadable, after, new_layout, shape_of
from .contract import Outcome
from .norms import Norm, read_norm, take_place, write_norm
from .rearrange import Writer
from .subgraph import weight_only


@dataclass
class Readers:
    """The linears that read a norm, each with what it is scaled by until there, and the calls in
    between: those that scale it by a number, and views."""

    linears: dict[fx.Node, float] = field(default_factory=dict)
    scales: list[fx.Node] = field(default_factory=list)
    views: list[fx.Node] = field(default_factory=list)


def fold_norms(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The pass. A site is a norm with a weight or a bias, or one that is scaled by a number."""
    outcome = Outcome()
    known = weight_only(graph, facts)
    for node in list(graph.nodes):
        norm = read_norm(node)  # as it is by now: it may read a norm that has been rewritten
        if norm is None:
            continue
        affine = [n for n in (norm.weight, norm.bias) if n is not None]
        if not affine and not any(map(_scale, norm.node.users)):
            continue
        outcome.sites += 1
        try:
            found = read_linears(norm, known)
            _veto(norm, affine, found, facts, known)
        except Declined as declined:
            outcome.declined.append(decline(norm.node, declined.reason, str(declined)))
            continue
        _build(graph, facts, norm, found)
        outcome.rewritten += 1
    return outcome


# --- who reads ----------------------------------------------------------------------------------


def read_linears(norm: Norm, known: Container[fx.Node]) -> Readers:
    """What reads `norm`; `known` depends on weights only. Raises Declined if anything else than
    linears with weights does."""
    found = Readers()
    _read(norm.node, 1.0, found, known)
    return found


def _read(node: fx.Node, scale: float, found: Readers, known: Container[fx.Node]) -> None:
    """Add the linears that read `node`, which is the norm times `scale`. Raises Declined if
    anything else does."""
    for user in readers(node):
        factor = _scale(user)
        if user.target in LINEARS and _reads_as_input(user, node, known):
            found.linears[user] = scale
        elif factor is not None:
            found.scales.append(user)
            _read(user, scale * factor, found, known)
        elif is_call(user, *REARRANGES) and _keeps_last_axis(user):
            found.views.append(user)
            _read(user, scale, found, known)
        else:
            place = f" in {where(user)}" if where(user) else ""
            name = "the caller gets it" if user.op == "output" else f"`{op_name(user)}`{place}"
            raise Declined(Reason.OTHER_READERS, f"what reads it is no linear with weights: {name}")


def _scale(node: fx.Node) -> float | None:
    """The number that a call multiplies its first argument by."""
    if (
        not is_call(node, *MULTIPLY, *DIVIDE)
        or node.kwargs
        or not isinstance(node.args[0], fx.Node)
    ):
        return None
    value = number(node.args[1])
    if value is None or (is_call(node, *DIVIDE) and value == 0):
        return None
    return value if is_call(node, *MULTIPLY) else 1 / value


def _keeps_last_axis(node: fx.Node) -> bool:
    try:
        layout = new_layout(shape_of(node.args[0]))
        return bool(layout[-1]) and after(node, layout)[-1] == layout[-1]
    except Unreadable:
        return False


def _reads_as_input(node: fx.Node, value: fx.Node, known: Container[fx.Node]) -> bool:
    at, weight, bias = LINEARS[node.target][:3]
    rest = [node.args[i] for i in (weight, bias) if i is not None and i < len(node.args)]
    kept = [n for n in rest if n is not None]
    return (
        node.args[at] is value
        and not node.kwargs
        and all(n in known for n in kept)
        and len(shape_of(node.args[weight])) == 2
    )


def _veto(
    norm: Norm, affine: list[fx.Node], found: Readers, facts: Facts, known: Container[fx.Node]
) -> None:
    """Raises Declined if folding could show, or nothing comes of it."""
    if not found.linears:
        raise Declined(Reason.OTHER_READERS, "nothing reads it that has weights")
    if any(n not in known for n in affine):
        raise Declined(Reason.OTHER_READERS, "its weight or bias depends on the input")
    inside = [norm.node, *found.views, *found.scales, *found.linears]
    if any(map(facts.is_written, inside)):
        raise Declined(Reason.MUTATED, "a value between it and its readers is written in place")
    if not facts.same_gradient_mode(inside):
        raise Declined(Reason.GRADIENT_MODE, "gradients are switched on or off in between")
    weights: list[Any] = [n.args[LINEARS[n.target][1]] for n in found.linears]
    dtypes = {n.meta["val"].dtype for n in (norm.node, *affine, *weights)}
    if len(dtypes) > 1:
        raise Declined(Reason.DTYPES, f"the dtypes differ: {sorted(map(str, dtypes))}")


# --- build --------------------------------------------------------------------------------------


def _build(graph: fx.Graph, facts: Facts, norm: Norm, found: Readers) -> None:
    for linear, scale in found.linears.items():
        write = Writer(graph, facts, linear)
        weight: fx.Node | float | None
        weight, bias = (_times(write, n, scale) for n in (norm.weight, norm.bias))
        if weight is None and scale != 1:
            weight = scale
        _fold(linear, weight, bias, write)
    for node in found.scales:
        node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
        graph.erase_node(node)
    plain = replace(norm, weight=None, bias=None)
    write = Writer(graph, facts, norm.node)
    take_place(write, norm.node, write_norm(write, plain))


def _times(write: Writer, node: fx.Node | None, scale: float) -> fx.Node | None:
    return node if node is None or scale == 1 else write.call(aten.mul.Tensor, node, scale)


def _fold(linear: fx.Node, weight: Any, bias: fx.Node | None, write: Writer) -> None:
    """Let `linear` read n where it read weight * n + bias."""
    _, at, bias_at, dim = LINEARS[linear.target]
    old: Any = linear.args[at]
    along = (lambda v: v) if dim == 1 else (lambda v: write.call(aten.unsqueeze.default, v, 1))
    if weight is not None:
        factor = along(weight) if isinstance(weight, fx.Node) else weight
        linear.update_arg(at, write.call(aten.mul.Tensor, old, factor))
    if bias is None:
        return
    shift = write.call(aten.sum.dim_IntList, write.call(aten.mul.Tensor, old, along(bias)), [dim])
    if bias_at is None:
        dtype = linear.meta["val"].dtype
        if shift.meta["val"].dtype != dtype:
            shift = write.call(aten.to.dtype, shift, dtype)
        behind = Writer(linear.graph, write.facts, linear.next)
        made = behind.new(aten.add.Tensor, linear, shift)
        linear.replace_all_uses_with(made, delete_user_cb=lambda user: user is not made)
        return
    given = linear.args[bias_at] if len(linear.args) > bias_at else None
    if given is not None:
        shift = write.call(aten.add.Tensor, given, shift)
    linear.args = (*linear.args[:bias_at], shift, *linear.args[bias_at + 1 :])


# call -> which argument is its input, its weight, its bias; which axis of the weight is summed over
LINEARS: dict[Any, tuple[int, int, int | None, int]] = {
    aten.linear.default: (0, 1, 2, 1),
    aten.addmm.default: (1, 2, 0, 0),
    aten.mm.default: (0, 1, None, 0),
    aten.matmul.default: (0, 1, None, 0),
}
