"""What happens after the graph, or beside it: writes by the caller before the backward pass, writes
that no schema declares, checks under checkpointing, names that must not linger."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from formwright.compiler import OptionError, collect, explain, transform
from formwright.compiler.explain import explain_with
from formwright.compiler.testing import FAILURES


def attend(q, k, v, mask=None):
    scores = q @ k.transpose(-1, -2) * 0.35
    return F.softmax(scores if mask is None else scores + mask, -1) @ v


def qkv(grad=True):
    return tuple(torch.randn(2, 3, 5, 8, requires_grad=grad) for _ in range(3))


class Norm(nn.Module):
    def __init__(self, kind, read):
        super().__init__()
        self.norm = kind(4, track_running_stats=True)
        self.read = read

    def forward(self, x):
        y = self.norm(x)
        if self.read:
            return y * (self.norm.running_var + 1).sqrt()[:, None]
        return x * 2


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.InstanceNorm1d])
@pytest.mark.parametrize("read", [False, True], ids=["result unused", "statistics read"])
@pytest.mark.parametrize("grad", [False, True])
def test_running_statistics(kind, read, grad, compile_eager):
    mine, theirs = Norm(kind, read), Norm(kind, read)
    compiled = compile_eager(mine)
    with torch.set_grad_enabled(grad):
        for _ in range(3):
            x = torch.randn(6, 4, 7)
            torch.testing.assert_close(compiled(x), theirs(x))

    torch.testing.assert_close(mine.norm.running_mean, theirs.norm.running_mean)
    torch.testing.assert_close(mine.norm.running_var, theirs.norm.running_var)


def test_the_caller_may_write_to_the_result_before_the_backward_pass(compile_eager):
    inputs = qkv()
    gradients = []
    for function in (compile_eager(attend), attend):
        out = function(*inputs)
        out.mul_(2)
        gradients.append(torch.autograd.grad(out.square().sum(), inputs))

    torch.testing.assert_close(*gradients)


def test_the_caller_may_write_to_the_mask_before_the_backward_pass(compile_eager):
    inputs = qkv()
    gradients = []
    with collect() as report:
        for function in (compile_eager(attend), attend):
            mask = torch.zeros(5, 5)
            out = function(*inputs, mask) * 1
            mask.fill_(-5)
            gradients.append(torch.autograd.grad(out.square().sum(), inputs))

    torch.testing.assert_close(*gradients)
    assert report.row("fuse_attention").rewritten == 1


@torch.library.custom_op("formwright_tests::probe", mutates_args=())
def probe(x: torch.Tensor) -> None:
    pass


@probe.register_fake
def _(x):
    return None


READERS = {
    "an operator without a result": lambda o: (probe(o), o * 2)[1],
    "dropout that is off, probed": lambda o: (probe(F.dropout(o, 0.1, False)), o * 2)[1],
    "a write to a list": lambda o: (torch._foreach_add_([o], 1.0), o * 2)[1],
    "chunks": lambda o: o.chunk(2, -1)[1] * 2,
    "largest with its place": lambda o: o.max(-1)[0],
}


@pytest.mark.parametrize("name", READERS)
def test_readers_without_a_plain_value(name, compile_eager):
    def function(q, k, v):
        return READERS[name](attend(*(x.transpose(1, 2) for x in (q, k, v))))

    inputs = tuple(torch.randn(2, 5, 3, 8) for _ in range(3))
    with collect() as report:
        torch.testing.assert_close(compile_eager(function)(*inputs), function(*inputs))

    assert report.row("fuse_attention").rewritten == 1
    assert not FAILURES & {d.code for d in report.declines()}


def test_verify_under_checkpointing(compile_eager):
    """The check runs the graph and its gradient; the checkpoint around it must not notice."""
    linear = nn.Linear(4, 4)
    compiled = compile_eager(lambda x: torch.sin(linear(x)).exp(), verify=True)
    x = torch.randn(3, 4, requires_grad=True)
    with collect() as report:
        checkpoint(compiled, x, use_reentrant=False).sum().backward()

    (want,) = torch.autograd.grad(torch.sin(linear(x)).exp().sum(), x)
    torch.testing.assert_close(x.grad, want)
    assert report.row("verify").rewritten == 1


def test_verify_is_not_seen_by_hooks_on_saved_tensors(compile_eager):
    def packed(function):
        seen = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t) or t, lambda t: t):
            function(torch.ones(3, requires_grad=True))
        return len(seen)

    def function(x):
        return x.sin().exp()

    assert packed(compile_eager(function, verify=True)) == packed(function)


def test_verify_of_what_is_not_dense(compile_eager):
    table = nn.Embedding(5, 4, sparse=True)
    with collect() as report:
        compile_eager(table, verify=True)(torch.tensor([1, 2]))

    assert report.row("verify").rewritten == 1


def test_explain_refuses_what_the_backend_refuses():
    for options in ({"target": "nope"}, {"disable": ["nope"]}, {"nope": 1}):
        with pytest.raises(OptionError, match="unknown"):
            explain_with(options, nn.Linear(2, 2), torch.ones(1, 2))


def test_explain_of_what_is_compiled_already(compile_eager):
    x = torch.ones(1, 2)
    module = nn.Linear(2, 2)
    module.compile(backend="formwright", options={"target": "eager"})

    assert explain(module, x).graphs == 1
    assert explain(compile_eager(lambda x: x + 1), x).graphs == 1


def test_a_refused_option_leaves_nothing_behind():
    from torch._dynamo.symbolic_convert import TensorifyState

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = 2.0

        def forward(self, x):
            return x * self.a

    def fails(gm, example_inputs, **_):
        raise RuntimeError("no code today")

    torch._dynamo.register_backend(fails, name="always_fails")
    for options in ({"bogus": 1}, {"target": "always_fails"}):
        torch._dynamo.reset()
        compiled = torch.compile(Scale(), backend="formwright", options=options, dynamic=True)
        with pytest.raises(Exception, match="formwright"):
            compiled(torch.ones(2))

        assert TensorifyState.empty()


def masked(q, k, v, keep):
    return attend(q, k, v, torch.where(keep, 0.0, -1e9)).sum(-1)


class Masked(nn.Module):
    def forward(self, q, k, v, keep):
        return masked(q, k, v, keep)


@pytest.mark.parametrize("inference", [False, True])
def test_an_exported_program_that_may_be_trained_keeps_its_gradients(inference):
    keep = torch.ones(5, 5, dtype=torch.bool)
    keep[1] = False
    program = torch.export.export(Masked(), (*qkv(), keep))
    with torch.set_grad_enabled(not inference), collect() as report:
        rewritten = transform(program)

    assert report.row("fuse_attention").rewritten == inference
    inputs = qkv()
    got, want = rewritten.module()(*inputs, keep), masked(*inputs, keep)
    torch.testing.assert_close(got, want)
    if not inference:
        mine = torch.autograd.grad(got.square().sum(), inputs)
        torch.testing.assert_close(mine, torch.autograd.grad(want.square().sum(), inputs))
