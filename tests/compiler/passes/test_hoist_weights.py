"""hoist_weights: what leaves the inference graph, and what must not."""

import pytest
import torch
from torch import nn

from formwright.compiler import Options, Reason, collect
from formwright.compiler.graph import op_name
from formwright.compiler.passes.hoist_weights import hoist_weights
from formwright.compiler.testing import assert_declines, capture_call, run_pass


class LoRA(nn.Module):
    """y = x (W + B A)^T: the merged weight depends on parameters only."""

    def __init__(self, d=8, r=2):
        super().__init__()
        self.base = nn.Linear(d, d)
        self.a = nn.Parameter(torch.randn(r, d))
        self.b = nn.Parameter(torch.randn(d, r))

    def forward(self, x):
        merged = self.base.weight + self.b @ self.a
        return nn.functional.linear(x, merged, self.base.bias)


def calls(module):
    return [op_name(n) for n in module.graph.nodes if n.op == "call_function"]


@torch.no_grad()
def test_a_merged_weight_leaves_the_graph():
    model, x = LoRA(), torch.randn(3, 8)
    captured, real = capture_call(model, x)
    outcome = run_pass(hoist_weights, captured.module)
    prepared = outcome.derivation.derive(real)

    assert calls(captured.module) == ["linear.default"]
    assert outcome.prepared_bytes == 8 * 8 * 4 == sum(p.nbytes for p in prepared)
    torch.testing.assert_close(captured.module(*real, *prepared)[0], model(x))


def test_training_keeps_it_in_the_graph():
    assert_declines(hoist_weights, LoRA(), torch.randn(3, 8), code=Reason.TRAINING)


@torch.no_grad()
def test_frozen_weights_are_hoisted_with_gradients_enabled():
    model = LoRA().requires_grad_(False)
    with torch.enable_grad():
        captured, _ = capture_call(model, torch.randn(3, 8))
        outcome = run_pass(hoist_weights, captured.module)

    assert outcome.rewritten == 1


@torch.no_grad()
def test_the_budget_is_kept():
    options = Options(weights_budget=100)

    outcome = assert_declines(
        hoist_weights, LoRA(), torch.randn(3, 8), code=Reason.BUDGET, options=options
    )

    assert "256 bytes" in outcome.declined[0].reason


@torch.no_grad()
def test_a_value_that_reaches_the_caller_stays():
    model = LoRA()

    def before(x):
        merged = model.base.weight + model.b @ model.a
        return x @ merged, merged.t()

    assert_declines(hoist_weights, before, torch.randn(3, 8), code=Reason.ALIASES_OUTPUT)


@torch.no_grad()
def test_a_value_much_larger_than_its_weights_stays():
    bias = nn.Parameter(torch.randn(16))
    model = nn.ParameterList([bias])

    def before(x):
        return x + (model[0][:, None] * model[0][None, :])[:, :, None].expand(16, 16, 8).exp()

    assert_declines(hoist_weights, before, torch.randn(16, 16, 8), code=Reason.NOT_WORTH_IT)


@torch.no_grad()
def test_views_of_weights_and_constants_are_no_sites():
    model = nn.Linear(8, 8)

    def before(x):
        return x @ model.weight.t()[:4].t() + torch.arange(4).float().exp()

    captured, _ = capture_call(before, torch.randn(3, 8))

    assert run_pass(hoist_weights, captured.module).sites == 0


@torch.no_grad()
@pytest.mark.parametrize("order", ["before", "after"])
def test_a_weight_that_the_graph_writes_is_not_read_early(order, compile_eager):
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(4))

        def forward(self, x):
            y = x * (self.count + 1).exp() if order == "before" else x
            self.count.add_(1)
            return y * (self.count + 1).exp()

    mine, theirs = Counter(), Counter()
    compiled = compile_eager(mine)
    for _ in range(3):
        x = torch.randn(4)
        torch.testing.assert_close(compiled(x), theirs(x))


@torch.no_grad()
def test_weight_norm_is_computed_once(compile_eager):
    model = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
    x = torch.randn(3, 8)
    with collect() as report:
        compiled = compile_eager(model)
        torch.testing.assert_close(compiled(x), model(x))

    assert report.row("hoist_weights").rewritten == 1
    assert report.prepared_bytes == 8 * 8 * 4
