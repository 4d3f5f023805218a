"""verify=True: a variant that is wrong is found at its first call and never used."""

import pytest
import torch
from torch import nn

from formwright.compiler import Options, Reason, Report, collect
from formwright.compiler.graph import aten
from formwright.compiler.passes.contract import Outcome, Pass
from formwright.compiler.testing import compile_with

VERIFY = Options(target="eager", verify=True)


def double_the_scale(graph, facts, options):
    for node in graph.nodes:
        if node.target is aten.mul.Tensor:
            node.args = (node.args[0], node.args[1] * 2)
            return Outcome(sites=1, rewritten=1)
    return Outcome()


def cut_the_gradient(graph, facts, options):
    for node in graph.nodes:
        if node.target is aten.mul.Tensor:
            with graph.inserting_before(node):
                cut = graph.call_function(aten.detach.default, (node.args[0],))
            node.args = (cut, node.args[1])
            return Outcome(sites=1, rewritten=1)
    return Outcome()


def function(x):
    return (x * 3).sin()


def test_a_right_variant_is_used(zoo_model, compile_eager):
    model, args, kwargs = zoo_model
    with torch.no_grad(), collect() as report:
        compile_eager(model, verify=True)(*args, **kwargs)

    row = report.row("verify")
    assert row.sites == row.rewritten == report.graphs


@pytest.mark.parametrize("wrong", [double_the_scale, cut_the_gradient])
def test_a_wrong_variant_is_not_used(wrong):
    x, report = torch.randn(4, requires_grad=True), Report()
    compiled = compile_with([Pass("wrong", wrong)], function, report, options=VERIFY)
    with pytest.warns(UserWarning, match="disagrees with the unrewritten graph"):
        got = compiled(x)

    torch.testing.assert_close(got, function(x))
    torch.testing.assert_close(
        torch.autograd.grad(compiled(x).sum(), x), torch.autograd.grad(function(x).sum(), x)
    )
    assert [d.code for d in report.declines()] == [Reason.VERIFY_FAILED]


def test_the_check_leaves_no_trace(compile_eager):
    """Buffers are updated once, and the random state is as it was."""
    mine, theirs = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    compiled = compile_eager(mine, verify=True)
    x = torch.randn(8, 4)
    state = torch.random.get_rng_state()
    torch.testing.assert_close(compiled(x), theirs(x))

    torch.testing.assert_close(mine.running_mean, theirs.running_mean)
    assert mine.num_batches_tracked == 1
    assert torch.equal(torch.random.get_rng_state(), state)


def test_random_graphs_are_not_checked_and_the_report_says_so(compile_eager):
    with collect() as report:
        compile_eager(lambda x: nn.functional.dropout(x, 0.5), verify=True)(torch.randn(4))

    assert [d.code for d in report.row("verify").declined] == [Reason.RANDOM]
