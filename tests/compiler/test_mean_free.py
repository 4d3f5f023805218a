"""Property test of the mean-free analysis: whatever is rewritten in a random graph is equal.

A program is a list of steps on a growing list of values [B, T, D]; each step makes one of earlier
ones, so streams fork, join, are tapped and begin anew. The claim of the analysis is checked too:
adding a constant along the axis to an indifferent value changes no output.
"""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from formwright.compiler.facts import Facts
from formwright.compiler.graph import copy_graph, emit
from formwright.compiler.passes.equate_norms import equate_norms
from formwright.compiler.passes.mean_free import mean_free
from formwright.compiler.passes.shorten_norms import shorten_norms
from formwright.compiler.testing import capture_call, run_pass

from .streams import CRMS, RMS, B, D, T, Weights, gradients, inputs, layer

SETTINGS = settings(max_examples=25, deadline=None, derandomize=True)

STEPS = {
    "writer": lambda p, x, y: F.linear(F.gelu(F.linear(x, p.r1)), p.w1, p.c1),
    "normed branch": lambda p, x, y: x + F.linear(F.linear(layer(x, p.g, p.b), p.r2), p.w2),
    "plain branch": lambda p, x, y: x + F.linear(F.linear(layer(x), p.r1), p.w1, p.c2),
    "sum": lambda p, x, y: x + y,
    "difference": lambda p, x, y: x - 0.5 * y,
    "norm": lambda p, x, y: layer(x),
    "norm with weights": lambda p, x, y: layer(x, p.g, p.b),
    "positions": lambda p, x, y: x + p.position,
    "row scale": lambda p, x, y: x * y.mean(-1, keepdim=True).sigmoid().detach(),
    "layer scale": lambda p, x, y: F.linear(F.linear(layer(x), p.r1), p.w1) * p.g,
    "activation": lambda p, x, y: torch.tanh(x),
    "turned": lambda p, x, y: x.transpose(0, 1).reshape(T, B, D).transpose(0, 1),
    "rolled": lambda p, x, y: torch.cat([x[:, 1:], y[:, :1]], 1),
    "averaged": lambda p, x, y: x.mean(1, keepdim=True).expand(-1, T, -1) + y,
    "masked": lambda p, x, y: x.masked_fill(y[..., :1] > 1.0, 0.0),
    "flipped channels": lambda p, x, y: x.flip(-1),
}

programs = st.lists(
    st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 20), st.integers(0, 20)),
    min_size=2,
    max_size=9,
)


def interpreted(steps, taps):
    def program(p, x):
        values = [x]
        for name, i, j in steps:
            x, y = values[max(len(values) - 1 - i % 2, 0)], values[j % len(values)]
            values.append(STEPS[name](p, x, y))
        seen = [values[t % len(values)] for t in taps]
        return [layer(values[-1]) + 1.0, *[v * 2.0 for v in seen]]

    return program


def test_what_is_rewritten_is_equal():
    """And something is: the programs would else be an empty claim."""
    counts = {"sites": 0, "rewritten": 0, "shortened": 0}

    @SETTINGS
    @given(programs, st.lists(st.integers(0, 9), max_size=1))
    def is_equal(steps, taps):
        net, x = Weights(interpreted(steps, taps), torch.float64), inputs(torch.float64)
        captured, real = capture_call(net, x)
        want = captured.module(*real)
        leaves = [v for v in real if v.requires_grad]
        theirs = gradients(want, leaves)
        for run, options, name in (
            (equate_norms, RMS, "rewritten"),
            (shorten_norms, CRMS, "shortened"),
        ):
            module = torch.fx.GraphModule(captured.module, copy_graph(captured.module.graph))
            outcome = run_pass(run, module, options)
            counts[name] += outcome.rewritten
            got = module(*real)
            torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)
            for g, w in zip(gradients(got, leaves), theirs, strict=True):
                torch.testing.assert_close(g, w, rtol=1e-7, atol=1e-7)
        counts["sites"] += outcome.sites

    is_equal()
    assert counts["sites"] > 50
    assert counts["rewritten"] > 15
    assert counts["shortened"] > 15


@SETTINGS
@given(programs)
def test_an_indifferent_value_may_be_moved_along_its_axis(steps):
    net, x = Weights(interpreted(steps, ()), torch.float64), inputs(torch.float64)
    captured, real = capture_call(net, x)
    want = captured.module(*real)
    graph = captured.module.graph
    found = mean_free(graph, Facts(graph))
    calls = [
        n for n in found.axis if n.op == "call_function" and isinstance(n.meta["val"], torch.Tensor)
    ]
    for node in calls:
        moved = emit(graph, torch.ops.aten.add.Tensor, (node, 0.7), like=node.next)
        node.replace_all_uses_with(moved, delete_user_cb=lambda user, m=moved: user is not m)
    captured.module.recompile()

    torch.testing.assert_close(captured.module(*real), want, rtol=1e-8, atol=1e-8)
