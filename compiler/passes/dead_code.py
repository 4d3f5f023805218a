"""Remove what no output and no side effect needs.

Law: trivially exact. Random calls stay, so that what draws after them draws the same numbers.
"""

from __future__ import annotations

from torch import fx

from ..facts import Facts, is_pure
from ..options import Options
from .contract import Outcome


def remove_dead_code(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """The pass: one walk from the end, so that whole dead chains go."""
    outcome = Outcome()
    for node in reversed(list(graph.nodes)):
        dead = node.op == "get_attr" or (node.op == "call_function" and is_pure(node))
        if dead and not node.users:
            graph.erase_node(node)
            outcome.sites += 1
            outcome.rewritten += 1
    return outcome
