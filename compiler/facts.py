"""What holds about a whole graph: mutation, aliasing, autocast, gradient mode, randomness.

The dialect is not functional, so a pass asks here before it moves a read past a write, and before
it takes two values to be apart. Facts are computed once for a graph and are void after an edit.
It must not know any pass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import torch
from torch import fx

from .graph import fake
from .torch_compat import ENTER_AUTOCAST, EXIT_AUTOCAST, SET_GRAD, OpOverload

# The arguments of `torch.autocast` of the region that a node stands in; None is the ambient state.
Region = tuple[Any, ...]


class Facts:
    """The facts of `graph`. `order[n]` is the position of a node."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.order: dict[fx.Node, int] = {n: i for i, n in enumerate(graph.nodes)}
        self.inputs: list[fx.Node] = graph.find_nodes(op="placeholder")
        self.output: fx.Node = next(iter(graph.find_nodes(op="output")))

    # --- aliasing -----------------------------------------------------------------------------

    @cached_property
    def _class(self) -> dict[fx.Node, fx.Node]:
        """Each node's alias class, named by its first node. Two nodes are in one class if their
        fake values share storage, or the schema says that one may be a view of the other."""
        parent: dict[fx.Node, fx.Node] = {n: n for n in self.order}

        def find(n: fx.Node) -> fx.Node:
            while parent[n] is not n:
                parent[n] = parent[parent[n]]
                n = parent[n]
            return n

        def join(a: fx.Node, b: fx.Node) -> None:
            first, second = sorted((find(a), find(b)), key=self.order.__getitem__)
            parent[second] = first

        owner: dict[int, fx.Node] = {}
        for node in self.order:
            for tensor in _tensors(node.meta.get("val")):
                storage = tensor.untyped_storage()._cdata
                join(owner.setdefault(storage, node), node)
            for viewed in _viewed(node):
                join(viewed, node)
        return {n: find(n) for n in self.order}

    def may_alias(self, a: fx.Node, b: fx.Node) -> bool:
        """Whether two values may share memory. Two inputs may, unless one is a weight: a caller
        can pass views of one tensor."""
        left, right = self._class[a], self._class[b]
        if left is right:
            return True
        if left.meta.get("weight") or right.meta.get("weight"):
            return False
        return left.op == "placeholder" and right.op == "placeholder"

    def is_view_of_input(self, node: fx.Node) -> bool:
        """Whether the value is (a view of) an input's memory: free to compute, not ours to keep."""
        return self._class[node].op == "placeholder"

    def reaches_output(self, node: fx.Node) -> bool:
        """Whether the caller may get the memory of this value."""
        mine = self._class[node]
        return any(self._class[n] is mine for n in self.output.all_input_nodes)

    # --- mutation -----------------------------------------------------------------------------

    @cached_property
    def writes(self) -> dict[fx.Node, list[fx.Node]]:
        """The nodes that write, each with the arguments it writes to."""
        found: dict[fx.Node, list[fx.Node]] = defaultdict(list)
        for node in self.order:
            for arg in _written(node):
                found[node].append(arg)
        return dict(found)

    def is_written(self, node: fx.Node) -> bool:
        """Whether the memory of this value is written anywhere in the graph."""
        return any(self.may_alias(node, arg) for args in self.writes.values() for arg in args)

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

    @cached_property
    def _regions(self) -> dict[fx.Node, Region | None]:
        stack: list[Region] = []
        found: dict[fx.Node, Region | None] = {}
        for node in self.order:
            if node.target is ENTER_AUTOCAST:
                stack.append(tuple(node.args))
            found[node] = stack[-1] if stack else None
            if node.target is EXIT_AUTOCAST and stack:
                stack.pop()
        return found

    def autocast_region(self, node: fx.Node) -> Region | None:
        """The arguments of the innermost autocast region in the graph around `node`, or None."""
        return self._regions[node]

    def autocast_dtype(self, node: fx.Node) -> torch.dtype | None:
        """The dtype that autocast, in the graph or ambient, gives to matrix products here."""
        value = fake(node)
        device = value.device.type if value is not None else "cpu"
        region = self._regions[node]
        if region is not None and region[0] == device:
            dtype: torch.dtype = region[1] or torch.get_autocast_dtype(device)
            return dtype if region[2] else None
        if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
            return None
        return torch.get_autocast_dtype(device)

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


def is_pure(node: fx.Node) -> bool:
    """Whether a node only computes a value from its arguments, the same each time."""
    return (
        isinstance(node.target, OpOverload)
        and not node.target._schema.is_mutable
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
    if not isinstance(node.target, OpOverload):
        return []
    if not node.target._schema.is_mutable:
        return []
    return [
        n for a, v in _arguments(node) if a.alias_info and a.alias_info.is_write for n in _nodes(v)
    ]


def _nodes(arg: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg(arg, found.append)
    return found
