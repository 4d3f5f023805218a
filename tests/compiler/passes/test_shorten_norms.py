"""shorten_norms: streams of width D - 1, and the hand check of the definition."""

import pytest
import torch
from torch.nn import functional as F

from formwright.compiler import Reason
from formwright.compiler.graph import fake
from formwright.compiler.passes.shorten_norms import shorten_norms
from formwright.compiler.testing import assert_declines, capture_call, run_pass

from ..streams import CRMS, EPS, D, T, Weights, assert_becomes, centred, flat, inputs, layer


def crms(y):
    """`CRMS(y)` as the paper defines it; y [..., D - 1]."""
    squares, last = (y * y).sum([-1], keepdim=True), y.sum([-1], keepdim=True)
    return y * torch.rsqrt((squares + last * last) / (y.shape[-1] + 1) + EPS)


def without_last(w, dim):
    return w.narrow(dim, 0, w.shape[dim] - 1)


def test_the_hand_check():
    x = torch.tensor([1.0, 2.0, -4.0, 1.0], dtype=torch.float64)
    want = torch.tensor([0.426401, 0.852803, -1.705606], dtype=torch.float64)

    torch.testing.assert_close(crms(x[:3]), want, rtol=1e-5, atol=1e-6)


def test_a_stream_loses_a_channel():
    def before(p, x):
        h = F.linear(F.linear(x, p.r1), p.w1, p.c1)
        return F.linear(layer(h), p.r2)

    def expected(p, x):
        w, c = centred(p.w1, 0)[:-1], centred(p.c1, 0)[:-1]
        n = crms(F.linear(F.linear(x, p.r1), w, c))
        return F.linear(n, p.r2[:, :-1] - p.r2[:, -1:])

    assert_becomes(shorten_norms, before, expected, CRMS)


def stream(p, x):
    """Centred once, two branches, the last norm read by the caller."""
    x = x + p.position
    x = x + F.linear(F.linear(layer(x), p.r1), p.w1, p.c1)
    x = x + F.linear(F.gelu(F.linear(layer(x).view(-1, D), p.r2).view(-1, T, 12)), p.w2) * p.g
    return layer(x, p.g, p.b)


def reshaped(p, x):
    h = F.linear(F.linear(x, p.r1), p.w1).view(-1, D).view(-1, T, D)
    h = torch.cat([p.position[:2].unsqueeze(0).expand(x.shape[0], 2, D), h], 1)
    return F.linear(layer(h), p.r1), layer(h[:, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [stream, reshaped], ids=lambda f: f.__name__)
def test_values_and_gradients(function, dtype):
    net, x = Weights(function, dtype), inputs(dtype)
    leaves = [x, *net.parameters()]
    captured, real = capture_call(net, x)
    weights = [torch.randn_like(v) for v in flat(net(x))]
    outcome = run_pass(shorten_norms, captured.module, CRMS)
    got, want = flat(captured.module(*real)), flat(net(x))

    assert outcome.rewritten == outcome.sites > 1, outcome.declined
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype is torch.float32 else {}
    torch.testing.assert_close(got, want, **tolerance)
    given, wanted = (
        torch.autograd.grad(v, leaves, weights, allow_unused=True) for v in (got, want)
    )
    for g, w in zip(given, wanted, strict=True):
        if w is not None:
            torch.testing.assert_close(g, w, **tolerance)


def test_no_value_of_the_stream_is_whole_any_more():
    captured, _ = capture_call(Weights(stream), inputs())
    run_pass(shorten_norms, captured.module, CRMS)
    sums = [
        n
        for n in captured.module.graph.nodes
        if n.op == "call_function" and str(n.target) == "aten.add.Tensor" and n.users
    ]
    widths = {fake(n).shape[-1] for n in sums if fake(n).dim() == 3}

    # what the stream begins with and the last norm, both outside, are whole
    assert widths == {D - 1, D, 1}


def test_what_is_no_stream_is_left():
    def before(p, x):
        return layer(F.gelu(x))

    assert_declines(
        shorten_norms, Weights(before), inputs(), code=Reason.MEAN_WRITTEN, options=CRMS
    )


def test_a_width_that_another_value_gives_is_left():
    def before(p, x):
        h = F.linear(F.linear(x, p.r1), p.w1).view_as(x)
        return F.linear(layer(h), p.r1)

    assert_declines(shorten_norms, Weights(before), inputs(), code=Reason.SHAPES, options=CRMS)
