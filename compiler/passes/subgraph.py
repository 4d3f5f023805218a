"""A part of a graph made a graph of its own, to be run by the prologue of a call.

It must not know what the part is for: prepared weights and mask facts both use it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import fx

from ..facts import Facts, is_pure
from ..graph import aten

# What is computed from activations (a bias from queries and keys, say) is not run ahead: the
# prologue would have to run the model.
HEAVY = (
    aten.matmul.default,
    aten.mm.default,
    aten.bmm.default,
    aten.linear.default,
    aten.addmm.default,
    aten.baddbmm.default,
    aten.einsum.default,
    aten.layer_norm.default,
    aten.rms_norm.default,
    aten.softmax.int,
    aten.scaled_dot_product_attention.default,
)


def ancestors(node: fx.Node) -> list[fx.Node]:
    """What `node` is computed from, sources first, `node` last."""
    seen: dict[fx.Node, None] = {}

    def visit(n: fx.Node) -> None:
        if n not in seen:
            for source in n.all_input_nodes:
                visit(source)
            seen[n] = None

    visit(node)
    return list(seen)


def runs_ahead(nodes: Iterable[fx.Node], facts: Facts) -> bool:
    """Whether these calls may be run before the graph: pure calls on inputs, on memory that the
    graph does not write, in the ambient autocast state."""
    return all(
        (node.op == "placeholder" or is_pure(node))
        and not facts.is_written(node)
        and not facts.autocast_region(node)
        for node in nodes
    )


def is_cheap_ahead(node: fx.Node, facts: Facts) -> bool:
    """Whether the prologue can compute this value without running the model."""
    behind = ancestors(node)
    return runs_ahead(behind, facts) and not any(n.target in HEAVY for n in behind)


def can_be_derived(mask: fx.Node, facts: Facts) -> bool:
    """Whether the prologue can compute this mask cheaply, and from the inputs: another in each
    call."""
    return is_cheap_ahead(mask, facts) and any(n.op == "placeholder" for n in ancestors(mask))


def weight_only(graph: fx.Graph, facts: Facts) -> dict[fx.Node, None]:
    """The weights, and the calls that depend on weights and constants only, in order; constants
    alone are not among them (the code generator folds those into their readers)."""
    known = {n: None for n in facts.inputs if n.meta.get("weight") and not facts.is_written(n)}
    constants: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op != "call_function" or not is_pure(node):
            continue
        if facts.autocast_region(node) or facts.is_written(node):
            continue
        inputs = node.all_input_nodes
        if not inputs:
            constants.add(node)
        elif any(n in known for n in inputs) and all(n in known or n in constants for n in inputs):
            known[node] = None
    return known


def extract(
    graph: fx.Graph, facts: Facts, wanted: Sequence[fx.Node]
) -> tuple[fx.GraphModule, list[int]]:
    """A module that computes the values of `wanted` as a tuple, and the positions of the inputs of
    the graph that it takes."""
    needed = {n for w in wanted for n in ancestors(w)}
    inputs = [n for n in facts.inputs if n in needed]
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in inputs:
        copies[node] = part.placeholder(node.name)
        copies[node].meta = dict(node.meta)
    for node in graph.nodes:
        if node in needed and node not in copies:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(tuple(copies[w] for w in wanted))
    return fx.GraphModule({}, part), [facts.inputs.index(n) for n in inputs]


def derived_input(
    graph: fx.Graph, node: fx.Node, name: str, after: fx.Node, *, weight: bool = False
) -> fx.Node:
    """A new input, behind the input `after`, that will hold the value of `node`, detached.
    `weight`: it stays the same from call to call."""
    with graph.inserting_after(after):
        made = graph.placeholder(name)
    made.meta = {"val": node.meta["val"].detach(), "weight": weight}
    return made


def picker(positions: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """What picks the inputs at `positions` out of all, as a tuple, as fast as Python can."""
    pick: Any = operator.itemgetter(*positions)
    # itemgetter gives one item bare, and several as a tuple
    return pick if len(positions) > 1 else lambda inputs: (pick(inputs),)


def fold_constants(module: fx.GraphModule) -> None:
    """Compute once, now, what `module` would compute alike in every call: pure calls that depend
    on no input. Their values become buffers."""
    values: dict[fx.Node, Any] = {}
    for node in module.graph.nodes:
        if node.op == "call_function" and all(n in values for n in node.all_input_nodes):
            assert callable(node.target)
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*args, **kwargs)
    for i, (node, value) in enumerate(values.items()):
        if isinstance(value, torch.Tensor) and any(user not in values for user in node.users):
            module.register_buffer(f"constant_{i}", value)
            with module.graph.inserting_before(node):
                constant = module.graph.get_attr(f"constant_{i}")
            node.replace_all_uses_with(constant, delete_user_cb=lambda user: user not in values)
    for node in reversed(values):
        if not node.users:
            module.graph.erase_node(node)
    module.recompile()
