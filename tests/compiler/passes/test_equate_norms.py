"""equate_norms as Before / Expected: which streams lose their mean, where, and which keep it."""

import pytest
import torch
from torch.nn import functional as F

from formwright.compiler import Options, Reason
from formwright.compiler.passes.equate_norms import equate_norms
from formwright.compiler.passes.shorten_norms import shorten_norms
from formwright.compiler.testing import assert_declines, capture_call, run_pass

from ..streams import CRMS, RMS, D, T, Weights, assert_becomes, centred, inputs, layer, rms


def test_a_stream_is_centred_once_and_by_its_writers():
    def before(p, x):
        x = x + F.linear(F.linear(layer(x), p.r1), p.w1, p.c1)
        x = x + F.linear(F.linear(layer(x, p.g, p.b), p.r2), p.w2)
        return F.linear(layer(x), p.r1)

    def expected(p, x):
        x = centred(x)
        x = x + F.linear(F.linear(rms(x), p.r1), centred(p.w1, 0), centred(p.c1, 0))
        x = x + F.linear(F.linear(rms(x, p.g) + p.b, p.r2), centred(p.w2, 0))
        return F.linear(rms(x), p.r1)

    assert_becomes(equate_norms, before, expected, sites=3)


def test_parameters_are_centred_as_they_are():
    def before(p, x):
        x = F.linear(F.linear(x, p.r1), p.w1) + p.position
        return F.linear(layer(x), p.r1)

    def expected(p, x):
        x = F.linear(F.linear(x, p.r1), centred(p.w1, 0)) + centred(p.position)
        return F.linear(rms(x), p.r1)

    assert_becomes(equate_norms, before, expected)


def test_layer_scale_goes_into_the_weights():
    def before(p, x):
        return layer(F.linear(F.linear(x, p.r1), p.w1, p.c1) * p.g) * 2

    def expected(p, x):
        h = F.linear(x, p.r1)
        w, c = p.w1 * p.g.reshape([-1, 1]), p.c1 * p.g.reshape([-1])
        return rms(F.linear(h, centred(w, 0), centred(c, 0))) * 2

    assert_becomes(equate_norms, before, expected)


def test_stochastic_depth_keeps_the_mean_out():
    def before(p, x):
        h = F.linear(F.linear(x, p.r1), p.w1)
        alive = torch.rand(x.shape[0], 1, 1, device=x.device).floor()
        return layer(h.div(0.9) * alive) * 2

    captured, _ = capture_call(Weights(before), inputs())
    assert run_pass(equate_norms, captured.module, RMS).rewritten == 1


def views(p, x):
    h = F.linear(F.linear(x.reshape(-1, D), p.r1), p.w1).view(-1, T, D)
    return layer(h.transpose(0, 1).contiguous())


def joined(p, x):
    h = F.linear(F.linear(x, p.r1), p.w1)
    return layer(torch.cat([p.position.unsqueeze(0).expand(x.shape[0], -1, -1), h], 1))


def picked(p, x):
    h = F.linear(F.linear(x, p.r1), p.w1)
    return layer(h[:, 1:-1] + h[:, 0].unsqueeze(1) + torch.stack([h[:, 1]], 1))


def pooled(p, x):
    return layer(F.linear(F.linear(x, p.r1), p.w1).mean(1))


def split(p, x):
    first, second = F.linear(F.linear(x, p.r1), p.w1).split([2, 3], 1)
    return layer(first[:, :2] - second[:, :2])


def indexed(p, x):
    return layer(F.linear(F.linear(x, p.r1), p.w1)[:, torch.tensor([2, 0])])


def masked(p, x):
    h = F.linear(F.linear(x, p.r1), p.w1)
    return layer(h.masked_fill(h[..., :1].detach().isnan(), 0.0))


def product(p, x):
    return layer((x @ p.r1.t()).view(-1, p.r1.shape[0]) @ p.w1.t())


def convolution(p, x):
    image = x.unsqueeze(1)  # [B, 1, T, D]
    kernel = p.w1.view(D, 1, 3, 4)
    return layer(F.conv2d(image, kernel, p.c1, stride=(1, 4)).flatten(2).transpose(1, 2))


def parallel(p, x):
    x = centred(x)
    h = layer(x, p.g, p.b)
    x = x + F.linear(F.linear(h, p.r1), p.w1) + F.linear(F.linear(layer(x), p.r2), p.w2)
    return layer(x)


@pytest.mark.parametrize(
    "before",
    [views, joined, picked, pooled, split, indexed, product, convolution, parallel],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_commutes_is_followed(before, dtype):
    captured, real = capture_call(Weights(before, dtype), inputs(dtype))
    want = captured.module(*real)[0]
    outcome = run_pass(equate_norms, captured.module, RMS)

    assert outcome.rewritten == outcome.sites > 0, outcome.declined
    torch.testing.assert_close(captured.module(*real)[0], want, rtol=1e-4, atol=1e-5)


DECLINED = {
    "a tap": (
        lambda p, x: (lambda h: (layer(h), h.exp()))(F.linear(F.linear(x, p.r1), p.w1)),
        Reason.MEAN_READ,
        "`exp.default`",
    ),
    "the caller": (
        lambda p, x: (lambda h: (layer(h), h))(F.linear(F.linear(x, p.r1), p.w1)),
        Reason.MEAN_READ,
        "the caller",
    ),
    "post norm": (
        lambda p, x: layer(layer(x + F.linear(F.linear(x, p.r1), p.w1), p.g, p.b) + p.position),
        Reason.MEAN_WRITTEN,
        "writes a mean",
    ),
    "an activation": (
        lambda p, x: layer(F.gelu(F.linear(F.linear(x, p.r1), p.w1))),
        Reason.MEAN_WRITTEN,
        "`gelu.default`",
    ),
    "dropout": (
        lambda p, x: layer(F.dropout(F.linear(F.linear(x, p.r1), p.w1), 0.5)),
        Reason.MEAN_WRITTEN,
        "dropout strikes out single numbers",
    ),
    "a cat along the axis": (
        lambda p, x: F.layer_norm(
            torch.cat([F.linear(F.linear(x, p.r1), w) for w in (p.w1, p.w2)], -1), [2 * D]
        ),
        Reason.MEAN_WRITTEN,
        "`cat.default`",
    ),
    "a scale along the axis": (
        lambda p, x: layer(F.linear(F.linear(x, p.r1), p.w1) * x),
        Reason.MEAN_WRITTEN,
        "`mul.Tensor`",
    ),
    "another axis": (
        lambda p, x: F.layer_norm(F.linear(F.linear(x, p.r1), p.w1).transpose(1, 2), [T]),
        Reason.MEAN_WRITTEN,
        "`linear.default`",
    ),
    "a number is added": (
        lambda p, x: layer(F.linear(F.linear(x, p.r1), p.w1) + 1.0),
        Reason.MEAN_WRITTEN,
        "`add.Tensor`",
    ),
}


@pytest.mark.parametrize("name", DECLINED)
def test_it_stays_a_layer_norm_and_the_report_says_why(name):
    before, code, words = DECLINED[name]
    outcome = assert_declines(equate_norms, Weights(before), inputs(), code=code, options=RMS)

    assert words in outcome.declined[0].reason


def test_what_is_written_in_place_is_left():
    def before(p, x):
        h = F.linear(F.linear(x, p.r1), p.w1)
        y = layer(h)
        h.add_(1)
        return y

    assert_declines(equate_norms, Weights(before), inputs(), code=Reason.MEAN_READ, options=RMS)


def test_auto_proves_and_leaves_it():
    def before(p, x):
        return layer(F.linear(F.linear(x, p.r1), p.w1))

    outcome = assert_declines(
        equate_norms, Weights(before), inputs(), code=Reason.NOT_WORTH_IT, options=Options()
    )
    assert "norm='rms'" in outcome.declined[0].reason


def test_behind_a_tap_a_stream_begins_anew():
    def before(p, x):
        x = x + F.linear(F.linear(layer(x), p.r1), p.w1)
        tap = x
        x = x + F.linear(F.linear(layer(x), p.r2), p.w2)
        return layer(x), tap

    captured, real = capture_call(Weights(before, torch.float64), inputs(torch.float64))
    want = captured.module(*real)
    outcome = run_pass(equate_norms, captured.module, RMS)

    assert (outcome.sites, outcome.rewritten) == (3, 2)
    assert [d.code for d in outcome.declined] == [Reason.MEAN_READ]
    torch.testing.assert_close(captured.module(*real), want)


def test_what_is_written_in_place_later_is_not_centred_early():
    def before(p, x):
        x = x * 1
        first = x + F.linear(F.linear(layer(x), p.r1), p.w1)
        x.add_(1)
        return layer(first) + layer(x)

    captured, real = capture_call(Weights(before, torch.float64), inputs(torch.float64))
    want = captured.module(*real)
    run_pass(equate_norms, captured.module, RMS)

    torch.testing.assert_close(captured.module(*real), want)


def test_the_layout_of_a_norm_stays():
    def before(p, x):
        h = F.linear(F.linear(x, p.r1), p.w1).transpose(0, 1)
        return layer(h), layer(h).view(-1)

    captured, real = capture_call(Weights(before, torch.float64), inputs(torch.float64))
    want = captured.module(*real)
    outcome = run_pass(equate_norms, captured.module, RMS)
    got = captured.module(*real)

    assert outcome.rewritten == 2
    assert [v.stride() for v in got] == [v.stride() for v in want]
    torch.testing.assert_close(got, want)


def test_streams_that_end_in_each_other():
    """A norm without weights writes into another stream: it has no mean either."""

    def before(p, x):
        first = layer(F.linear(F.linear(x, p.r1), p.w1))
        second = first + F.linear(F.linear(x, p.r2), p.w2)
        return F.linear(layer(second), p.r1)

    for run, options in ((equate_norms, RMS), (shorten_norms, CRMS)):
        captured, real = capture_call(Weights(before, torch.float64), inputs(torch.float64))
        want = captured.module(*real)
        outcome = run_pass(run, captured.module, options)

        assert outcome.rewritten == outcome.sites == 2
        torch.testing.assert_close(captured.module(*real), want)
