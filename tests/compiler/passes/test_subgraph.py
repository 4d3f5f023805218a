"""Parts of a graph made graphs of their own, and what is computed once in them."""

import torch

from formwright.compiler.facts import Facts
from formwright.compiler.graph import op_name
from formwright.compiler.passes.subgraph import ancestors, extract, fold_constants, runs_ahead
from formwright.compiler.testing import capture_call


def function(x, y):
    keys = (torch.arange(4) >= 2).unsqueeze(0)
    mask = torch.where(x & keys, 0.0, -1e9)
    return mask + y.sin(), keys


def extracted():
    inputs = (torch.tensor([[True, False, True, True]]), torch.randn(1, 4))
    captured, real = capture_call(function, *inputs)
    graph, facts = captured.module.graph, Facts(captured.module.graph)
    (where,) = [n for n in graph.nodes if op_name(n).startswith("where")]
    return graph, facts, where, real


def test_a_part_takes_only_what_it_needs():
    graph, facts, where, real = extracted()
    part, positions = extract(graph, facts, [where])

    assert runs_ahead(ancestors(where), facts)
    assert [facts.inputs[p].name for p in positions] == ["l_x_"]
    (mask,) = part(*(real[p] for p in positions))
    torch.testing.assert_close(mask, torch.tensor([[-1e9, -1e9, 0.0, 0.0]]))


def test_constants_are_computed_once():
    graph, facts, where, real = extracted()
    part, positions = extract(graph, facts, [where])
    before = part(*(real[p] for p in positions))
    fold_constants(part)

    calls = [op_name(n) for n in part.graph.nodes if n.op == "call_function"]
    assert not any("arange" in c or "ge" in c for c in calls)
    torch.testing.assert_close(part(*(real[p] for p in positions)), before)
