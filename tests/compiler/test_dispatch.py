"""The dispatch mechanism, on a second user made for the purpose: a pass that speculates.

The toy: where the graph multiplies by a 0/1 mask that the caller gives, it bets that the mask is
all ones and drops the product. The prologue checks the bet on each call.
"""

import threading

import pytest
import torch
from torch import fx, nn

from formwright.compiler import FormwrightWarning, Options, Reason, Report, collect
from formwright.compiler.dispatch import Dispatcher, Leaf
from formwright.compiler.graph import aten, op_name
from formwright.compiler.passes.contract import Outcome, Pass
from formwright.compiler.passes.hoist_weights import hoist_weights
from formwright.compiler.testing import compile_with


class AllOnes:
    name = "all_ones"

    def __init__(self, position):
        self.position = position
        self.calls = 0

    def derive(self, inputs):
        self.calls += 1
        return () if bool((inputs[self.position] == 1).all()) else None


class Shift:
    """Holds always and gives the graph one more input: how far to shift."""

    name = "shift"

    def derive(self, inputs):
        mask = next(x for x in inputs if isinstance(x, torch.Tensor) and x.dtype == torch.int64)
        return (mask.sum().to(torch.float32).reshape(1),)


def drop_the_mask(graph, facts, options):
    for node in graph.nodes:
        if node.target is aten.mul.Tensor and getattr(node.args[1], "op", "") == "placeholder":
            derivation = AllOnes(facts.inputs.index(node.args[1]))
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
            return Outcome(sites=1, rewritten=1, derivation=derivation)
    return Outcome()


def add_the_shift(graph, facts, options):
    """Replace the sum of the mask, a computed value, by an input that the prologue derives."""
    for node in graph.nodes:
        if node.target is aten.sum.default:
            with graph.inserting_after(facts.inputs[-1]):
                shift = graph.placeholder("shift")
            (reader,) = node.users
            shift.meta["val"] = reader.meta["val"]
            reader.replace_all_uses_with(shift)
            return Outcome(sites=1, rewritten=1, derivation=Shift())
    return Outcome()


TOY = Pass("drop_the_mask", speculate=drop_the_mask)
HOIST = Pass("hoist_weights", speculate=hoist_weights)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.randn(4, 4))

    def forward(self, x, mask):
        weight = self.linear.weight * self.scale.exp()
        return nn.functional.linear(x * mask, weight, self.linear.bias)


def inputs(ones):
    return torch.randn(3, 4), torch.ones(3, 1) if ones else torch.tensor([[1.0], [0.0], [1.0]])


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_the_right_variant_runs_and_variants_are_compiled_on_need(train, dynamic):
    model, report = Masked(), Report()
    compiled = compile_with([TOY], model, report, dynamic=dynamic)
    with torch.set_grad_enabled(train):
        for ones, known in [(True, ["all_ones"]), (False, ["all_ones", "general"])] * 2:
            x, mask = inputs(ones)
            got, want = compiled(x, mask), model(x, mask)
            torch.testing.assert_close(got, want)
            if train:
                weights = list(model.parameters())
                torch.testing.assert_close(
                    torch.autograd.grad(got.square().sum(), weights),
                    torch.autograd.grad(want.square().sum(), weights),
                )
            seen = [v.name for v in report.variants]
            assert seen[: len(known)] == known

    assert [(v.name, v.state) for v in report.variants] == [
        ("all_ones", "compiled"),
        ("general", "compiled"),
    ]
    assert report.graphs == 1


@torch.no_grad()
def test_two_users_compose():
    model, report = Masked(), Report()
    compiled = compile_with([TOY, HOIST], model, report)
    for ones in (True, False, True):
        x, mask = inputs(ones)
        torch.testing.assert_close(compiled(x, mask), model(x, mask))

    assert [v.name for v in report.variants] == ["all_ones+prepared", "prepared"]


@torch.no_grad()
@pytest.mark.parametrize("dynamic", [False, True])
def test_derived_values_are_inputs_of_the_variant(dynamic):
    def function(x, mask):
        return x * mask.sum().to(torch.float32)

    report = Report()
    row = Pass("add_the_shift", speculate=add_the_shift)
    compiled = compile_with([row], function, report, dynamic=dynamic)
    for n in (3, 5, 3):
        x, mask = torch.randn(n), torch.ones(n, dtype=torch.int64)
        torch.testing.assert_close(compiled(x, mask), function(x, mask))

    assert {v.name for v in report.variants} == {"shift"}


@pytest.mark.parametrize("train", [False, True])
def test_with_code_generation(train):
    """Variants made while Dynamo compiles and after it, through AOTAutograd and its partitioner."""
    model, report = Masked(), Report()
    options = Options(target="aot_eager_decomp_partition")
    compiled = compile_with([TOY, HOIST], model, report, options=options, dynamic=True)
    with torch.set_grad_enabled(train):
        for ones, rows in [(True, 3), (False, 5), (False, 7), (True, 9)]:
            x, mask = torch.randn(rows, 4), torch.ones(rows, 1)
            if not ones:
                mask[0] = 0
            got, want = compiled(x, mask), model(x, mask)
            torch.testing.assert_close(got, want)
            if train:
                got.square().sum().backward()
                mine = [p.grad.clone() for p in model.parameters() if p.grad is not None]
                model.zero_grad()
                want.square().sum().backward()
                theirs = [p.grad for p in model.parameters() if p.grad is not None]
                torch.testing.assert_close(mine[0], theirs[0])
                model.zero_grad()

    assert all(v.state == "compiled" for v in report.variants)
    assert len(report.variants) == 2


@torch.no_grad()
def test_a_target_that_fails_late_leaves_the_graph_running():
    import torch._dynamo

    calls = []

    def fails_on_the_second(gm, example_inputs, **_):
        calls.append([op_name(n) for n in gm.graph.nodes if n.op == "call_function"])
        if len(calls) > 1:
            raise RuntimeError("no code today")
        return gm

    torch._dynamo.register_backend(fails_on_the_second, name="fails_on_the_second")
    model, report = Masked(), Report()
    compiled = compile_with([TOY], model, report, options=Options(target="fails_on_the_second"))
    compiled(*inputs(True))
    x, mask = inputs(False)
    with pytest.warns(UserWarning, match="runs without code generation"):
        got = compiled(x, mask)

    torch.testing.assert_close(got, model(x, mask))

    assert [(v.name, v.state) for v in report.variants] == [
        ("all_ones", "compiled"),
        ("general", "eager"),
    ]


@torch.no_grad()
def test_threads_share_one_compiled_model():
    model, report = Masked(), Report()
    compiled = compile_with([TOY, HOIST], model, report)
    compiled(*inputs(True))
    errors = []

    @torch.no_grad()  # the gradient mode is each thread's own
    def work(seed):
        generator = torch.Generator().manual_seed(seed)
        for i in range(40):
            x = torch.randn(3, 4, generator=generator)
            mask = torch.ones(3, 1) if (i + seed) % 2 else torch.tensor([[1.0], [0.0], [1.0]])
            try:
                torch.testing.assert_close(compiled(x, mask), model(x, mask))
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not errors
    assert sorted(v.name for v in report.variants) == ["all_ones+prepared", "prepared"]


def test_whoever_sees_an_executable_sees_its_guards():
    """Another thread comes at the worst moment: just when the graph has been lowered."""
    seen = []

    class Seen(Leaf):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "executable" and value is not None:
                other = threading.Thread(target=lambda: seen.append(dispatcher(5)))
                other.start()
                other.join()

    def lower(graph, name, inputs):
        return lambda n: "of the first shape", [lambda n: n == 3]

    leaf = Seen("general", fx.GraphModule({}, fx.Graph()))
    dispatcher = Dispatcher(leaf, lower, lambda n: "fallback")

    assert dispatcher(3) == "of the first shape"
    assert seen == ["fallback"]


@torch.no_grad()
def test_a_derivation_that_fails_does_not_hold():
    class Fails(AllOnes):
        def derive(self, inputs):
            raise ZeroDivisionError

    def bet(graph, facts, options):
        outcome = drop_the_mask(graph, facts, options)
        outcome.derivation = Fails(0)
        return outcome

    model, report = Masked(), Report()
    compiled = compile_with([Pass("bet", speculate=bet)], model, report)
    x, mask = inputs(False)

    torch.testing.assert_close(compiled(x, mask), model(x, mask))
    assert [v.name for v in report.variants] == ["all_ones", "general"]


def test_a_target_that_fails_on_our_graph_only_is_reported_so():
    """The rewritten graph is dropped, and with it what the report said of it."""
    import torch._dynamo

    def fails_on_fused(gm, example_inputs, **_):
        if any("scaled_dot" in str(n.target) for n in gm.graph.nodes):
            raise RuntimeError("cannot fuse")
        return gm

    def attention(q):
        return torch.softmax(q @ q.transpose(-1, -2), -1) @ q

    torch._dynamo.register_backend(fails_on_fused, name="fails_on_fused")
    compiled = torch.compile(attention, backend="formwright", options={"target": "fails_on_fused"})
    q = torch.randn(2, 2, 4, 4)
    with collect() as report, pytest.warns(FormwrightWarning, match="cannot fuse"):
        got = compiled(q)

    torch.testing.assert_close(got, attention(q))
    assert [d.code for d in report.declines()] == [Reason.TARGET_FAILED]
    assert all(p.rewritten == 0 for p in report.passes)
    assert report.variants == []
