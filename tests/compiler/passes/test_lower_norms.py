"""lower_norms: the formula is that of the operator, in every dtype, and Inductor keeps the rows."""

import pytest
import torch
from torch import nn
from torch._inductor.utils import run_and_get_code
from torch.nn import functional as F

from formwright.compiler import Reason, collect
from formwright.compiler.graph import op_name
from formwright.compiler.operators import materialize
from formwright.compiler.passes.lower_norms import lower_norms
from formwright.compiler.testing import assert_declines, assert_rewrites, capture_call, run_pass

from ..law import assert_same

D, EPS = 16, 1e-5

pytestmark = pytest.mark.usefixtures("lowers_always")


def inputs(dtype=torch.float32):
    torch.manual_seed(0)
    x, w, b = torch.randn(3, 5, D), torch.rand(D) + 0.5, torch.randn(D)
    return [v.to(dtype).requires_grad_() for v in (x, w, b)]


def row(value):
    return materialize(value)


def test_rms_norm():
    def before(x, w, b):
        return F.rms_norm(x, [D], w, EPS) + b

    def expected(x, w, b):
        return x * row(torch.rsqrt((x * x).mean([-1], True) + EPS)) * w + b

    assert_rewrites(lower_norms, before, expected, *inputs())


def test_layer_norm():
    def before(x, w, b):
        return F.layer_norm(x, [D], w, b, 1e-6)

    def expected(x, w, b):
        x = x - x.sum([-1], True) * (1 / D)
        return x * row(torch.rsqrt((x * x).mean([-1], True) + 1e-6)) * w + b

    assert_rewrites(lower_norms, before, expected, *inputs())


NORMS = {
    "layer": lambda x, w, b: F.layer_norm(x, [D], w, b, EPS),
    "layer without bias": lambda x, w, b: F.layer_norm(x, [D], w, None, EPS),
    "bias alone": lambda x, w, b: F.layer_norm(x, [D], None, b, EPS),
    "plain layer": lambda x, w, b: F.layer_norm(x, [D]),
    "rms": lambda x, w, b: F.rms_norm(x, [D], w, EPS),
    "rms, eps by dtype": lambda x, w, b: F.rms_norm(x, [D], w),
    "of a view": lambda x, w, b: F.layer_norm(x.transpose(0, 1), [D], w, b, EPS),
}
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.bfloat16: 2e-2,
    torch.float16: 2e-3,
}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_formula_is_that_of_the_operator(name, dtype):
    norm, leaves = NORMS[name], inputs(dtype)
    captured, real = capture_call(norm, *leaves)
    want = norm(*leaves)
    outcome = run_pass(lower_norms, captured.module)
    narrow = name == "rms, eps by dtype" and dtype in (torch.bfloat16, torch.float16)
    assert outcome.rewritten == (not narrow)
    (got,) = captured.module(*real)

    assert_same("output", [got], [want], TOLERANCE[dtype])
    weights = torch.randn(got.shape, dtype=torch.promote_types(dtype, torch.float32))
    given, theirs = (
        torch.autograd.grad(
            (v.to(weights.dtype) * weights).sum(), real, allow_unused=True, materialize_grads=True
        )
        for v in (got, want)
    )
    assert_same("gradient", given, theirs, 4 * TOLERANCE[dtype])


def test_several_axes_are_no_site():
    captured, _ = capture_call(lambda x: F.layer_norm(x, [5, D]), inputs()[0])

    assert run_pass(lower_norms, captured.module).sites == 0


def test_autocast_is_left():
    def before(x):
        with torch.autocast("cpu", torch.bfloat16):
            return F.layer_norm(x, [D])

    assert_declines(lower_norms, before, inputs()[0], code=Reason.AUTOCAST)


def test_a_layer_norm_that_fits_in_a_cache_is_left(monkeypatch):
    monkeypatch.undo()

    def before(x):
        return F.layer_norm(x, [1024])

    def lowered(rows, **keywords):
        captured, _ = capture_call(before, torch.empty(rows, 1024), **keywords)
        return run_pass(lower_norms, captured.module).rewritten

    assert_declines(lower_norms, before, torch.empty(512, 1024), code=Reason.NOT_WORTH_IT)
    assert lowered(513) == 1
    assert lowered(2, dynamic=True) == 1  # nobody knows how many rows there will be


def test_a_materialized_value_is_the_value():
    x = torch.randn(4, 1, dtype=torch.float64, requires_grad=True)

    assert torch.equal(materialize(x), x)
    torch.library.opcheck(materialize, (x,))
    torch.autograd.gradcheck(materialize, (x,))


class Net(nn.Module):
    """Two residual branches with a norm each."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(D), nn.RMSNorm(D)])
        self.linears = nn.ModuleList([nn.Linear(D, D), nn.Linear(D, D)])

    def forward(self, x):
        for norm, linear in zip(self.norms, self.linears, strict=True):
            x = x + linear(norm(x))
        return x


@pytest.mark.inductor
@pytest.mark.parametrize("name", ["layer", "rms"])
def test_all_of_it_is_one_loop_over_the_rows(name):
    x, *affine = (v.detach() for v in inputs())
    x = x.flatten(0, 1).repeat(4, 1)
    x[0], x[1, 0], x[2, 0] = 0, torch.nan, torch.inf

    with torch.no_grad(), torch._inductor.config.patch(fx_graph_cache=False):
        got, code = run_and_get_code(torch.compile(NORMS[name], backend="formwright"), x, *affine)

    assert sum(c.count("for(int64_t x0=") for c in code) == 1
    assert torch.allclose(got, NORMS[name](x, *affine), atol=1e-6, equal_nan=True)


@pytest.mark.inductor
def test_inductor_generates_code_for_it():
    torch.manual_seed(0)
    net, x = Net(), torch.randn(64, D, requires_grad=True)
    with collect() as report:
        got = torch.compile(net, backend="formwright")(x)
    want = net(x)
    leaves = [x, *net.parameters()]

    assert report.row("lower_norms").rewritten == 2
    assert [v.state for v in report.variants] == ["compiled"]
    assert_same("output", [got], [want], 1e-5)
    mine, theirs = (torch.autograd.grad(v.square().sum(), leaves) for v in (got, want))
    assert_same("gradient", mine, theirs, 1e-4)


def test_other_targets_are_given_whole_norms(compile_eager):
    with collect() as report:
        compile_eager(Net())(torch.randn(4, D))

    assert "lower_norms" not in {p.name for p in report.passes}


def test_the_calls():
    captured, _ = capture_call(NORMS["layer"], *inputs())
    run_pass(lower_norms, captured.module)
    names = [op_name(n) for n in captured.module.graph.nodes if n.op == "call_function"]

    assert names.count("formwright.materialize.default") == 1
    assert "layer_norm.default" not in names
