"""A pass of your own: x * sigmoid(x) becomes silu(x), tested as Before / Expected."""

import torch
from torch import fx
from torch.nn import functional as F

from formwright.compiler import Options, Reason
from formwright.compiler.facts import Facts
from formwright.compiler.graph import aten, decline, emit, is_call
from formwright.compiler.passes.contract import Outcome
from formwright.compiler.testing import assert_declines, assert_rewrites


def raise_silu(graph: fx.Graph, facts: Facts, options: Options) -> Outcome:
    """Law: silu(x) = x * sigmoid(x) by definition; rounding differs in the last place."""
    outcome = Outcome()
    for node in list(graph.nodes):
        if not is_call(node, aten.mul.Tensor):
            continue
        x, gate = node.args
        if not (is_call(gate, aten.sigmoid.default) and gate.args[0] is x):
            continue
        outcome.sites += 1
        if facts.written_between([x], gate, node):
            row = decline(node, Reason.MUTATED, "x is written between sigmoid and product")
            outcome.declined.append(row)
            continue
        node.replace_all_uses_with(emit(graph, aten.silu.default, (x,), like=node))
        graph.erase_node(node)
        outcome.rewritten += 1
    return outcome


def before(x):
    return x * torch.sigmoid(x)


def expected(x):
    return F.silu(x)


def written_between(x):
    y = x * 1
    gate = torch.sigmoid(y)
    y[0].add_(1)
    return y * gate


x = torch.randn(4, 8, requires_grad=True)
assert_rewrites(raise_silu, before, expected, x)
assert_declines(raise_silu, written_between, x, code=Reason.MUTATED)
print("x * sigmoid(x) -> silu(x): same graph as expected, same values and gradients")
