"""The backend as a whole: registration, options, and never in the user's way."""

import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from formwright.compiler import Reason, collect
from formwright.compiler import pipeline as pipeline_module
from formwright.compiler.passes.contract import Pass
from formwright.compiler.report import Report
from formwright.compiler.testing import capture_call, compile_with


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


def test_the_backend_is_registered_where_the_package_is_installed():
    code = "import torch, torch._dynamo\n"
    code += "print('formwright' in torch._dynamo.list_backends(exclude_tags=()))"

    assert python(code).stdout.strip() == "True"


def test_importing_the_package_takes_nothing_heavy_with_it():
    code = "import sys, formwright\n"
    code += "print([m for m in ('torch', 'ray', 'grpc', 'optuna') if m in sys.modules])"

    assert python(code).stdout.strip() == "[]"


def test_the_parts_refuse_their_bare_names():
    for name in ("compiler", "search", "service"):
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"],
            capture_output=True,
            text=True,
            cwd=pipeline_module.__file__.rsplit("/compiler/", 1)[0],
        )
        assert f"import formwright.{name}, not {name}" in done.stderr


BAD_OPTIONS = {
    "an unknown option": ({"atention": True}, "unknown option 'atention'; known: attention, "),
    "an unknown target": ({"target": "inducter"}, "Did you mean 'inductor'?"),
    "itself as the target": ({"target": "formwright"}, "'formwright' cannot be its own target"),
    "a value of the wrong kind": ({"attention": "yes"}, "takes True or False, not 'yes'"),
    "a value that is not a choice": ({"padding": "of"}, "known: auto, off, remove"),
    "an unknown pass": ({"disable": ["fuse"]}, "unknown pass to disable 'fuse'"),
    "a bare string of passes": ({"disable": "fuse_attention"}, "takes a list of pass names"),
    "an unknown Inductor option": ({"target_options": {"max_autotun": True}}, "max_autotune"),
    "a negative budget": ({"weights_budget": -1}, "takes a number of bytes, not -1"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options_are_refused_with_what_is_known(name):
    options, message = BAD_OPTIONS[name]
    compiled = torch.compile(nn.Linear(2, 2), backend="formwright", options=options)
    with pytest.raises(Exception, match="formwright") as caught:
        compiled(torch.ones(1, 2))

    assert message in str(caught.value)


def test_an_unknown_mode_is_refused():
    compiled = torch.compile(nn.Linear(2, 2), backend="formwright", mode="max-autotun")
    with pytest.raises(Exception, match="unknown mode 'max-autotun'; known: default"):
        compiled(torch.ones(1, 2))


def raises(graph, facts, options):
    raise KeyError("lost")


def breaks(graph, facts, options):
    next(iter(graph.find_nodes(op="output"))).args = ((),)
    raise AssertionError("half way")


@pytest.mark.parametrize("run", [raises, breaks])
@pytest.mark.parametrize("target", ["eager", "aot_eager"])
def test_a_pass_that_fails_costs_nothing_but_speed(run, target):
    from formwright.compiler import Options

    model, x, report = nn.Linear(4, 4), torch.randn(2, 4), Report()
    compiled = compile_with(
        [Pass("broken", run)], model, report, options=Options(target=target), fullgraph=True
    )
    with pytest.warns(UserWarning, match="pass 'broken' failed") as caught:
        torch.testing.assert_close(compiled(x), model(x))

    assert len([w for w in caught if "formwright" in str(w.message)]) == 1
    assert [d.code for d in report.row("broken").declined] == [Reason.INTERNAL_ERROR]
    assert report.row("capture").rewritten == 1


def test_a_capture_that_fails_leaves_the_graph_compiled(monkeypatch):
    from formwright.compiler import backend

    module = sys.modules["formwright.compiler.backend"]
    monkeypatch.setattr(module, "capture", lambda *a: 1 / 0)
    model, x = nn.Linear(4, 4), torch.randn(2, 4)
    compiled = torch.compile(model, backend=backend, options={"target": "aot_eager"})
    torch._dynamo.utils.counters.clear()
    with collect() as report, pytest.warns(UserWarning, match="compiled as it is") as caught:
        got = [compiled(x) for _ in range(2)]

    torch.testing.assert_close(got, [model(x)] * 2)
    assert len([w for w in caught if "formwright" in str(w.message)]) == 1
    assert [d.code for d in report.declines()] == [Reason.INTERNAL_ERROR]
    assert "division by zero" in report.declines()[0].reason
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1  # compiled, not eager


class Sine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


DECLINED = {
    "autograd.Function": (lambda x: Sine.apply(x) + 1, Reason.HIGHER_ORDER_OP),
    "cond": (
        lambda x: torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,)),
        Reason.HIGHER_ORDER_OP,
    ),
    "vmap": (lambda x: torch.vmap(torch.sin)(x), Reason.FUNCTION_TRANSFORM),
    "grad": (lambda x: torch.func.grad(lambda y: y.sin().sum())(x), Reason.FUNCTION_TRANSFORM),
    "checkpoint, to a target that would not recompute": (
        lambda x: checkpoint(torch.sin, x, use_reentrant=False),
        Reason.HIGHER_ORDER_OP,
    ),
}


@pytest.mark.parametrize("name", DECLINED)
def test_what_does_not_come_through_unchanged_is_declined(name, compile_eager):
    function, code = DECLINED[name]
    x = torch.randn(4, 4, requires_grad=True)
    with collect() as report, warnings.catch_warnings():
        warnings.filterwarnings("error", message="formwright")
        got, want = compile_eager(function)(x), function(x)

    torch.testing.assert_close(got, want)
    assert got.requires_grad == want.requires_grad
    if got.requires_grad:
        (mine,) = torch.autograd.grad(got.sum(), x)
        (theirs,) = torch.autograd.grad(want.sum(), x)
        torch.testing.assert_close(mine, theirs)
    assert [d.code for d in report.declines()] == [code]


def test_a_nested_compile_region_is_declined(compile_eager):
    @torch.compiler.nested_compile_region
    def region(x):
        return x.sin()

    with collect() as report, torch.no_grad():
        compile_eager(lambda x: region(region(x)))(torch.randn(3))

    assert [d.code for d in report.declines()] == [Reason.HIGHER_ORDER_OP]


def test_checkpointing_saves_what_it_saves_without_us():
    """Recomputation survives: what is kept for the backward pass is as without our backend."""
    layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(4))

    def function(x):
        for layer in layers:
            x = checkpoint(lambda y, f=layer: torch.relu(f(y).sin()).cos(), x, use_reentrant=False)
        return x

    def saved(backend, **keywords):
        torch._dynamo.reset()
        kept = []
        compiled = torch.compile(function, backend=backend, **keywords)
        x = torch.randn(128, 64, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            out = compiled(x)
        gradient = torch.autograd.grad(out.sum(), x)[0]
        want = torch.autograd.grad(function(x).sum(), x)[0]
        torch.testing.assert_close(gradient, want)
        return sum(t.numel() for t in kept)

    target = "aot_eager_decomp_partition"
    with collect() as report:
        mine = saved("formwright", options={"target": target})

    assert report.row("capture").rewritten == 1
    assert mine == saved(target)


def test_graph_breaks_give_one_graph_each(compile_eager):
    def function(x):
        x = x * 2
        torch._dynamo.graph_break()
        return x + 1

    x = torch.randn(3)
    with collect() as report:
        torch.testing.assert_close(compile_eager(function)(x), function(x))

    assert report.graphs == report.row("capture").rewritten == 2


def test_buffers_written_in_place(compile_eager):
    mine, theirs = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    compiled = compile_eager(mine)
    with collect() as report:
        for _ in range(3):
            x = torch.randn(8, 4)
            torch.testing.assert_close(compiled(x), theirs(x))

    torch.testing.assert_close(mine.running_var, theirs.running_var)
    assert mine.num_batches_tracked == 3
    assert report.row("capture").rewritten == 1


def test_an_input_whose_shape_is_changed_in_place(compile_eager):
    def function(x):
        x.t_()
        return x * 2

    mine, theirs = torch.randn(2, 3), torch.randn(2, 3)
    theirs = mine.clone()
    with collect() as report:
        torch.testing.assert_close(compile_eager(function)(mine), function(theirs))

    assert mine.shape == theirs.shape == (3, 2)
    assert report.graphs >= 1


def test_what_dynamo_knows_of_the_inputs_is_passed_on():
    """Static inputs (weights) are marked, or CUDA graphs would copy them on each call."""
    from torch._functorch import _aot_autograd

    captured, real = capture_call(nn.Linear(4, 4), torch.randn(2, 4))
    placeholders = captured.module.graph.find_nodes(op="placeholder")
    described = _aot_autograd.frontend_utils._try_get_metadata_from_dynamo(
        captured.module, {}.keys(), len(real), []
    )
    sources, static = described

    assert static == [i for i, n in enumerate(placeholders) if n.meta["weight"]]
    assert len(static) == 2
    assert None not in sources


class Wide(nn.Module):
    """Layers larger than the first bucket of DDP, so that its optimiser splits the graph."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(600, 600) for _ in range(3))

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


def test_ddp_splits_the_graph_and_each_part_is_compiled(tmp_path):
    import torch.distributed as dist

    place = f"file://{tmp_path}/rendezvous"
    try:
        dist.init_process_group("gloo", init_method=place, rank=0, world_size=1)
    except RuntimeError as error:
        pytest.skip(f"no network interface, not even the loopback: {error}")
    try:
        model = Wide()
        parallel = nn.parallel.DistributedDataParallel(model, bucket_cap_mb=1.2)
        x = torch.randn(4, 600)
        with collect() as report:
            compiled = torch.compile(
                parallel, backend="formwright", options={"target": "aot_eager"}
            )
            got, want = compiled(x), model(x)
            torch.testing.assert_close(got, want)
            weights = list(model.parameters())
            got.square().sum().backward()
            mine = [w.grad.clone() for w in weights]
            torch.testing.assert_close(
                mine, list(torch.autograd.grad(want.square().sum(), weights))
            )
        assert report.row("capture").rewritten == report.graphs > 1
    finally:
        dist.destroy_process_group()


def test_module_floats_are_constants_unless_they_vary(compile_eager):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = 0.5

        def forward(self, x):
            return x * self.scale

    model = Scaled()
    with collect() as report:
        compiled = compile_eager(model, dynamic=True)
        for i in range(12):
            model.scale = 0.5 + i
            x = torch.randn(3)
            torch.testing.assert_close(compiled(x), model(x))

    assert report.graphs == 2  # the first as a number, then as a symbol


def test_mode_and_target_options_reach_the_target():
    import torch._dynamo

    seen = []

    def probe(gm, example_inputs, **keywords):
        seen.append(keywords)
        return gm

    torch._dynamo.register_backend(probe, name="probe_of_keywords")
    options = {"target": "probe_of_keywords", "target_options": {"level": 3}}
    torch.compile(nn.Linear(2, 2), backend="formwright", options=options)(torch.ones(1, 2))

    assert seen == [{"options": {"level": 3}}]
