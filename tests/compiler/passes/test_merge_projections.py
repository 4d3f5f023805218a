"""merge_projections: what becomes one product, what stays apart and why."""

import pytest
import torch
from torch import nn

from formwright.compiler import Options, Reason, collect
from formwright.compiler.graph import op_name
from formwright.compiler.passes.merge_projections import merge_projections
from formwright.compiler.testing import assert_declines, capture_call, run_pass

D, T = 32, 8


class Projections(nn.Module):
    """q, k and v of one tensor, read as heads of attention."""

    def __init__(self, outs=(D, D, D), biases=(True, True, True), dtype=torch.float32):
        super().__init__()
        pairs = zip(outs, biases, strict=True)
        self.linears = nn.ModuleList(nn.Linear(D, n, bias=b, dtype=dtype) for n, b in pairs)

    def forward(self, x):
        q, k, v = (f(x).unflatten(-1, (-1, 8)).transpose(1, 2) for f in self.linears)
        return nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def calls(module):
    return [op_name(n) for n in module.graph.nodes if n.op == "call_function"]


@torch.no_grad()
@pytest.mark.parametrize("outs", [(D, D, D), (D, D // 4, D // 4)])
@pytest.mark.parametrize("biases", [(True,) * 3, (False,) * 3, (True, False, True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_three_linears_become_one(outs, biases, dtype):
    model, x = Projections(outs, biases, dtype), torch.randn(4, T, D, dtype=dtype)
    captured, real = capture_call(model, x)
    outcome = run_pass(merge_projections, captured.module)
    prepared = outcome.derivation.derive(real)

    assert (outcome.sites, outcome.rewritten) == (1, 1)
    assert calls(captured.module).count("linear.default") == 1
    assert outcome.prepared_bytes == sum(p.nbytes for p in prepared)
    torch.testing.assert_close(captured.module(*real, *prepared)[0], model(x))


@torch.no_grad()
def test_a_changed_weight_is_merged_anew(compile_eager):
    model, x = Projections(), torch.randn(2, T, D)
    with collect() as report:
        compiled = compile_eager(model)
        torch.testing.assert_close(compiled(x), model(x))
    model.linears[1].weight.mul_(2)

    assert report.row("merge_projections").rewritten == 1
    torch.testing.assert_close(compiled(x), model(x))


def test_inference_tensors_run_apart(compile_eager):
    with torch.inference_mode():
        model, x = Projections(), torch.randn(2, T, D)
        compiled = compile_eager(model)
        torch.testing.assert_close(compiled(x), model(x))
        model.linears[0].weight.mul_(2)
        torch.testing.assert_close(compiled(x), model(x))


def test_training_is_left_apart():
    outcome = assert_declines(
        merge_projections, Projections(), torch.randn(2, T, D), code=Reason.NOT_WORTH_IT
    )

    assert "in each step" in outcome.declined[0].reason


@torch.no_grad()
@pytest.mark.parametrize(
    ("rows", "width", "outs"),
    [(4096, 64, (64, 64, 64)), (16, 1024, (1024, 1024, 1024)), (4, 32, (128, 128))],
)
def test_what_is_not_measured_to_pay_is_left_apart(rows, width, outs):
    linears = nn.ModuleList(nn.Linear(width, n) for n in outs)

    def before(x):
        return [f(x).sin() for f in linears]

    assert_declines(merge_projections, before, torch.randn(rows, width), code=Reason.NOT_WORTH_IT)


@torch.no_grad()
def test_a_result_that_the_caller_gets_stays_apart():
    linears = Projections().linears

    def before(x):
        return [f(x) for f in linears]

    assert_declines(merge_projections, before, torch.randn(T, D), code=Reason.ALIASES_OUTPUT)


@torch.no_grad()
def test_a_result_that_is_written_stays_apart():
    linears = Projections().linears

    def before(x):
        return [f(x).mul_(2).sin() for f in linears]

    assert_declines(merge_projections, before, torch.randn(T, D), code=Reason.MUTATED)


@torch.no_grad()
def test_what_is_read_is_written_in_between():
    a, b, c = Projections().linears

    def before(x):
        x = x + 1
        first = a(x).sin()
        x[:2].mul_(2)
        return first, b(x).sin(), c(x).sin()

    assert_declines(merge_projections, before, torch.randn(T, D), code=Reason.MUTATED)


@torch.no_grad()
def test_a_view_that_needs_dense_rows_stays_apart():
    linears = Projections().linears

    def before(x):
        return [f(x).view(-1).sin() for f in linears]

    assert_declines(merge_projections, before, torch.randn(T, D), code=Reason.SHAPES)


@torch.no_grad()
def test_rows_known_at_run_time_only():
    linears = Projections().linears

    def before(x):
        return [f(x).sin() for f in linears]

    assert_declines(merge_projections, before, torch.randn(T, D), code=Reason.SHAPES, dynamic=True)


@torch.no_grad()
def test_dtypes_that_differ_under_autocast():
    linears = Projections().linears

    def before(x):
        with torch.autocast("cpu", torch.bfloat16):
            return [f(x).sin() for f in linears]

    assert_declines(merge_projections, before, torch.randn(T, D), code=Reason.AUTOCAST)


@torch.no_grad()
def test_the_budget_is_kept():
    outcome = assert_declines(
        merge_projections,
        Projections(),
        torch.randn(2, T, D),
        code=Reason.BUDGET,
        options=Options(weights_budget=1000),
    )

    assert "12,672 bytes" in outcome.declined[0].reason


@torch.no_grad()
def test_one_weight_read_twice_is_right(compile_eager):
    a, b, _ = Projections().linears

    def before(x):
        return a(x).sin() + b(x).cos() + a(x).tan()

    x = torch.randn(T, D)
    torch.testing.assert_close(compile_eager(before)(x), before(x))
