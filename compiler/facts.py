"""What holds about a whole graph: mutation, aliasing, autocast, gradient mode, randomness.

The dialect is not functional, so a pass asks here before it moves a read past a write, and before
it takes two values to be apart. Facts are computed once for a graph and are void after an edit,
but for what `adopt` carries over.
It must not know any pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import torch
from torch import fx

from .graph import Region, autocast_regions, fake
from .torch_compat import SET_GRAD, HigherOrderOperator, OpOverload


class Facts:
    """The facts of `graph`. `order[n]` is the position of a node."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.order: dict[fx.Node, int] = {n: i for i, n in enumerate(graph.nodes)}
        self.inputs: list[fx.Node] = graph.find_nodes(op="placeholder")
        self.output: fx.Node = graph.output_node()
        self._alias_class = _alias_classes(self.order)
        self._handed_out = {self._alias_class[n] for n in self.output.all_input_nodes}
        self._autocast = autocast_regions(graph)
        self._gradient_mode = _gradient_modes(graph)
        # the nodes that write, each with the arguments it writes to
        self.writes = {n: args for n in self.order if (args := _written(n))}

    def adopt(self, new: fx.Node, old: fx.Node) -> None:
        """`new` takes the place of `old`: what holds of the one holds of the other."""
        tables: Any = (self.order, self._alias_class, self._autocast, self._gradient_mode)
        for table in tables:
            table[new] = table[old]

    def add(self, new: fx.Node, at: fx.Node, viewed: fx.Node | None = None) -> None:
        """`new` stands where `at` stands, in memory of its own or (a view) in that of `viewed`."""
        self.order[new] = self.order[at]
        self._autocast[new] = self._autocast[at]
        self._gradient_mode[new] = self._gradient_mode[at]
        self._alias_class[new] = new if viewed is None else self._alias_class[viewed]

    # --- aliasing -----------------------------------------------------------------------------

    def may_alias(self, a: fx.Node, b: fx.Node) -> bool:
        """Whether two values may share memory. Two inputs may, since a caller can pass views of
        one tensor; weights share memory only if they do so while we compile."""
        left, right = self._alias_class[a], self._alias_class[b]
        if left is right:
            return True
        both_inputs = left.op == "placeholder" and right.op == "placeholder"
        return both_inputs and not (left.meta.get("weight") and right.meta.get("weight"))

    def is_fresh(self, node: fx.Node) -> bool:
        """Whether the value is in memory that `node` itself made."""
        return node.op == "call_function" and self._alias_class[node] is node

    def is_view_of_input(self, node: fx.Node) -> bool:
        """Whether the value is (a view of) an input's memory: free to compute, not ours to keep."""
        return self._alias_class[node].op == "placeholder"

    def reaches_output(self, node: fx.Node) -> bool:
        """Whether the caller may get the memory of this value."""
        return self._alias_class[node] in self._handed_out

    # --- mutation -----------------------------------------------------------------------------

    def is_written(self, node: fx.Node) -> bool:
        """Whether the memory of this value is written anywhere in the graph."""
        return any(self.may_alias(node, arg) for args in self.writes.values() for arg in args)

    @cached_property
    def writes_inputs(self) -> bool:
        """Whether the graph may write to memory that an input holds."""
        return any(self.is_view_of_input(a) for args in self.writes.values() for a in args)

    def written_between(
        self, nodes: Iterable[fx.Node], start: fx.Node, end: fx.Node
    ) -> fx.Node | None:
        """The first node between `start` and `end` that may write to the memory of `nodes`."""
        watched = list(nodes)
        for writer, args in self.writes.items():
            if self.order[start] < self.order[writer] < self.order[end] and any(
                self.may_alias(n, arg) for n in watched for arg in args
            ):
                return writer
        return None

    # --- the state that operators run under -----------------------------------------------------

    def autocast_region(self, node: fx.Node) -> tuple[Region, ...]:
        """The autocast regions of the graph around `node`; none of them is the ambient state."""
        return self._autocast[node]

    def autocast_dtype(self, node: fx.Node) -> torch.dtype | None:
        """The dtype that autocast, in the graph or ambient, gives to matrix products here."""
        value = fake(node)
        device = value.device.type if value is not None else "cpu"
        for kind, dtype, enabled, *_ in reversed(self._autocast[node]):
            if kind == device:
                return (dtype or torch.get_autocast_dtype(device)) if enabled else None
        if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
            return None
        return torch.get_autocast_dtype(device)

    def same_gradient_mode(self, nodes: Iterable[fx.Node]) -> bool:
        """Whether gradients are recorded at all of these nodes or at none of them."""
        return len({self._gradient_mode[n] for n in nodes}) <= 1

    def gradient_mode(self, node: fx.Node) -> bool:
        """Whether gradients are enabled at `node`."""
        return self._gradient_mode[node]

    def cuts_gradients(self, node: fx.Node) -> bool:
        """Whether a value is detached from its arguments because gradients are off around it,
        in a graph that records some."""
        return self.records_gradients and not self._gradient_mode[node]

    @cached_property
    def records_gradients(self) -> bool:
        """Whether autograd may record any of the graph: some input wants a gradient, and gradients
        are enabled around the graph or by the graph itself."""
        wanted = any(n.meta.get("requires_grad") for n in self.inputs)
        enables = any(n.target is SET_GRAD and bool(n.args[0]) for n in self.order)
        return wanted and (torch.is_grad_enabled() or enables)

    @cached_property
    def is_random(self) -> bool:
        """Whether the graph draws random numbers."""
        return any(draws_random(n) for n in self.order)


def _alias_classes(order: dict[fx.Node, int]) -> dict[fx.Node, fx.Node]:
    """Each node's alias class, named by its first node. Two nodes are in one class if their fake
    values share storage, or the schema says that one may be a view of the other."""
    parent: dict[fx.Node, fx.Node] = {n: n for n in order}

    def find(n: fx.Node) -> fx.Node:
        while parent[n] is not n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    def join(a: fx.Node, b: fx.Node) -> None:
        first, second = sorted((find(a), find(b)), key=order.__getitem__)
        parent[second] = first

    owner: dict[int, fx.Node] = {}
    for node in order:
        storages = [t.untyped_storage()._cdata for t in _tensors(node.meta.get("val"))]
        for storage in (*storages, *node.meta.get("real_storage", ())):
            join(owner.setdefault(storage, node), node)
        for viewed in _viewed(node):
            join(viewed, node)
    return {n: find(n) for n in order}


def _gradient_modes(graph: fx.Graph) -> dict[fx.Node, bool]:
    """Whether gradients are enabled at each node."""
    enabled = torch.is_grad_enabled()
    found: dict[fx.Node, bool] = {}
    for node in graph.nodes:
        found[node] = enabled
        if node.target is SET_GRAD:
            enabled = bool(node.args[0])
    return found


def draws_random(node: fx.Node) -> bool:
    """Whether a node draws random numbers; dropout that is switched off does not."""
    if not isinstance(node.target, OpOverload):
        return False
    name = node.target._schema.name
    if "dropout" in name and "scaled_dot" not in name:
        return len(node.args) < 3 or (bool(node.args[2]) and bool(node.args[1]))
    if name == "aten::scaled_dot_product_attention":
        return len(node.args) > 4 and bool(node.args[4])
    seeded: bool = torch.Tag.nondeterministic_seeded in node.target.tags
    return seeded


# Operators whose schema does not say that they write: (arguments written, argument that says if).
UNDECLARED_WRITES = {
    "aten::batch_norm": ((3, 4), 5),
    "aten::instance_norm": ((3, 4), 5),
    "aten::native_batch_norm": ((3, 4), 5),
    "aten::cudnn_batch_norm": ((3, 4), 5),
    "aten::miopen_batch_norm": ((3, 4), 5),
    "aten::_batch_norm_impl_index": ((3, 4), 5),
}


WRITES_NO_VALUES = ("aten::detach_",)


def is_pure(node: fx.Node) -> bool:
    """Whether a node only computes a value from its arguments, the same each time."""
    return (
        isinstance(node.target, OpOverload)
        and not node.target._schema.is_mutable
        and not _written(node)
        and bool(node.target._schema.returns)  # what returns nothing is there for its effect
        and not draws_random(node)
        and not node.is_impure(impure_random=False)
    )


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value] if value.layout is torch.strided else []
    if isinstance(value, list | tuple):
        return [t for v in value for t in _tensors(v)]
    return []


def _arguments(node: fx.Node) -> list[tuple[Any, Any]]:
    """Pairs of a schema argument and what the node gives for it."""
    assert isinstance(node.target, OpOverload)
    schema = node.target._schema.arguments
    given = [(a, node.args[i]) for i, a in enumerate(schema) if i < len(node.args)]
    return given + [(a, node.kwargs[a.name]) for a in schema if a.name in node.kwargs]


def _viewed(node: fx.Node) -> list[fx.Node]:
    """The arguments that the value of `node` may be a view of, by its schema."""
    if not isinstance(node.target, OpOverload):
        # getitem and whatever else is not an operator hands its arguments through
        return node.all_input_nodes if node.op == "call_function" else []
    if "dropout" in node.target._schema.name and not draws_random(node):
        return _nodes(node.args[:1])  # eager hands the argument back
    if not any(r.alias_info for r in node.target._schema.returns):
        return []
    return [n for a, v in _arguments(node) if a.alias_info for n in _nodes(v)]


def _written(node: fx.Node) -> list[fx.Node]:
    if node.op != "call_function":
        return []
    if isinstance(node.target, HigherOrderOperator):  # what its graph does is not looked at
        return node.all_input_nodes
    if not isinstance(node.target, OpOverload):
        return []
    if node.target._schema.name in UNDECLARED_WRITES:
        written, flag = UNDECLARED_WRITES[node.target._schema.name]
        return [n for i in written for n in _nodes(node.args[i])] if node.args[flag] else []
    if not node.target._schema.is_mutable or node.target._schema.name in WRITES_NO_VALUES:
        return []
    return [
        n for a, v in _arguments(node) if a.alias_info and a.alias_info.is_write for n in _nodes(v)
    ]


def _nodes(arg: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg(arg, found.append)
    return found
