"""Attention on inputs of every kind, used in every way: memory that is shared or repeated, sizes of
zero and one, gradients for some inputs only, second derivatives, checkpoints, and inputs that are
written between forward and backward.
"""

import itertools

import pytest
import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .law import assert_lawful, assert_same, four, run

softmax = F.softmax


def biased(q, k, v, x):
    return softmax(q @ k.transpose(-1, -2) / 2 + x, -1) @ v


def plain(q, k, v, x):
    return softmax(q @ k.transpose(-1, -2) / 2, -1) @ v


def hidden(q, k, v, x):
    return softmax((q @ k.transpose(-1, -2)).masked_fill(x > 0, -1e9), -1) @ v


def causal(q, k, v, x):
    triangle = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
    return softmax((q @ k.transpose(-1, -2)).masked_fill(~triangle, float("-inf")), -1) @ v


def by_einsum(q, k, v, x):
    p = softmax(torch.einsum("bhld,bhsd->bhls", q, k) * 0.3 + x, -1)
    return torch.einsum("bhls,bhsd->blhd", p, v)


SPELLINGS = {f.__name__: f for f in (plain, biased, hidden, causal, by_einsum)}


# Each makes q, k, v and x of one leaf [4,4,4,4].
VIEWS = {
    "one tensor": lambda t: [t, t, t, t],
    "keys are the values": lambda t: [t[0, 0].expand(4, 4, 4, 4), t, t, t.mT],
    "keys are the queries turned": lambda t: [t, t.mT, t, t],
    "overlapping windows": lambda t: [
        t.view(-1).as_strided((4, 4, 4, 4), (16, 8, 2, 1), i) for i in (0, 3, 5, 1)
    ],
    "expanded over all": lambda t: [t[0, 0, 0, 0].expand(4, 4, 4, 4)] * 4,
    "expanded over the batch": lambda t: [t[:1].expand(4, 4, 4, 4) for _ in range(4)],
    "expanded over the width": lambda t: [t[..., :1].expand(4, 4, 4, 4) for _ in range(4)],
    "expanded over the length": lambda t: [t[:, :, :1].expand(4, 4, 4, 4) for _ in range(4)],
    "width outermost": lambda t: [t.permute(1, 2, 3, 0)] * 4,
    "permuted in four ways": lambda t: [
        t.permute(0, 2, 1, 3),
        t.permute(3, 2, 1, 0),
        t.permute(1, 3, 0, 2),
        t.permute(2, 0, 3, 1),
    ],
    "every second": lambda t: [t.repeat(1, 1, 1, 2)[..., i::2] for i in (0, 1, 0, 1)],
    "flipped": lambda t: [t.flip(0), t.flip(1), t.flip(2), t.flip(3)],
}


def of_one(make, train):
    def build():
        torch.manual_seed(0)
        leaf = torch.randn(4, 4, 4, 4, dtype=torch.float64, requires_grad=train)
        return [leaf], make(leaf)

    return build


@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
@pytest.mark.parametrize("name", VIEWS)
def test_inputs_that_share_memory(name, train):
    for function in (biased, hidden):
        assert_lawful(function, of_one(VIEWS[name], train))


SHAPES = {
    "ones": (1, 1, 1, 1),
    "one batch": (1, 3, 5, 2),
    "one head": (2, 1, 5, 2),
    "one key": (2, 3, 1, 2),
    "width one": (2, 3, 5, 1),
    "no batch": (0, 3, 5, 2),
    "no heads": (2, 0, 5, 2),
    "no keys": (2, 3, 0, 2),
    "no width": (2, 3, 5, 0),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("spelling", ["plain", "causal", "by_einsum"])
def test_sizes_of_one_and_zero(name, spelling):
    b, h, n, d = SHAPES[name]

    def build():
        inputs, _ = four(b, h, n, d)()
        return inputs[:3], [*inputs[:3], torch.ones(n, dtype=torch.float64)]

    assert_lawful(SPELLINGS[spelling], build)


@pytest.mark.parametrize("lengths", [(1, 5), (5, 1), (0, 5), (5, 0)], ids=str)
def test_lengths_that_differ(lengths):
    def build():
        torch.manual_seed(0)
        made = [torch.randn(2, 3, n, 4, dtype=torch.float64) for n in (*lengths, lengths[1])]
        made = [t.requires_grad_() for t in made]
        return made, [*made, torch.ones(lengths[1], dtype=torch.float64)]

    for function in (biased, hidden):
        assert_lawful(function, build)


@pytest.mark.parametrize("wanted", itertools.product([False, True], repeat=4), ids=str)
def test_gradients_for_some(wanted):
    def build():
        inputs, _ = four(4, 4, 4, 4, train=False)()
        made = [t.requires_grad_(w) for t, w in zip(inputs, wanted, strict=True)]
        return made, made

    assert_lawful(biased, build)


@pytest.mark.parametrize("written", range(4), ids=["q", "k", "v", "x"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_inputs_written_between_forward_and_backward(spelling, written):
    """Eager raises where it saved the input, and is right where it did not; so are we."""

    def build():
        leaves, _ = four(4, 4, 4, 4)()
        return leaves, [t * 1 for t in leaves]

    def write(*arguments):
        with torch.no_grad():
            arguments[written].mul_(2)

    assert_lawful(SPELLINGS[spelling], build, between=write)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_second_call_does_not_write_to_the_first(spelling, compile_eager):
    compiled = compile_eager(SPELLINGS[spelling])
    build = four(4, 4, 4, 4)
    got = run(compiled, build, lambda *inputs: compiled(*(2 * t for t in inputs)))
    want = run(SPELLINGS[spelling], build)
    assert_same("output", got.outputs, want.outputs)
    assert_same("gradient", got.gradients, want.gradients)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_second_derivatives(spelling, compile_eager):
    def twice(function):
        inputs, _ = four(4, 4, 4, 4)()
        first = torch.autograd.grad(
            function(*inputs).square().sum(), inputs, create_graph=True, allow_unused=True
        )
        total = sum(g.square().sum() for g in first if g is not None)
        return torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)

    got, want = twice(compile_eager(SPELLINGS[spelling])), twice(SPELLINGS[spelling])
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("target", ["eager", "aot_eager_decomp_partition"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_checkpointed(spelling, target):
    def function(q, k, v, x):
        return checkpoint(SPELLINGS[spelling], q * 2, k, v, x, use_reentrant=False).sin()

    report = assert_lawful(function, four(4, 4, 4, 4), target=target)
    assert report.row("fuse_attention").rewritten == (target != "eager")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_one_graph_for_several_sizes(spelling, compile_eager):
    compiled = compile_eager(SPELLINGS[spelling], dynamic=True)
    for shape in [(2, 3, 6, 6), (3, 2, 5, 5), (2, 2, 2, 2), (1, 1, 1, 1)]:
        got, want = (run(f, four(*shape)) for f in (compiled, SPELLINGS[spelling]))
        assert_same("output", got.outputs, want.outputs)
        assert_same("gradient", got.gradients, want.gradients)


@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_dropout_of_two_that_are_alike_is_drawn_twice(train, compile_eager):
    def function(q, k, v):
        first, second = (F.dropout(softmax(q @ k.mT, -1), 0.5) @ v for _ in range(2))
        return first - second

    inputs, _ = four(4, 4, 4, 4, train=train)()
    assert compile_eager(function)(*inputs[:3]).abs().max() > 0.01
