"""Remove what no output and no side effect needs.

Law: trivially exact. Random calls stay, so that what draws after them draws the same numbers;
assertions stay, but for those on the dtype, device and layout of a value, which the graph itself
proves (`torch.export` strews them over casts).
"""

from __future__ import annotations

from torch import fx

from ..facts import Facts, is_pure
from ..graph import aten, fake
from ..options import Options
from .contract import Outcome


def remove_dead_code(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The pass: one walk from the end, so that whole dead chains go."""
    outcome = Outcome()
    for node in reversed(list(graph.nodes)):
        if not node.users and _is_removable(node):
            graph.erase_node(node)
            outcome.sites += 1
            outcome.rewritten += 1
    return outcome


def _is_removable(node: fx.Node) -> bool:
    if node.op == "get_attr":
        return True
    if node.op != "call_function":
        return False
    return is_pure(node) or _is_proven_assertion(node)


def _is_proven_assertion(node: fx.Node) -> bool:
    if node.target is not aten._assert_tensor_metadata.default or len(node.args) != 1:
        return False
    (argument,) = node.args
    value = fake(argument) if isinstance(argument, fx.Node) else None
    return value is not None and all(
        name in ("dtype", "device", "layout") and getattr(value, name) == wanted
        for name, wanted in node.kwargs.items()
    )
