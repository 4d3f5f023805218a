"""fold_norms as Before / Expected: weight, bias and factor of a norm go into its readers."""

import pytest
import torch
from torch.nn import functional as F

from formwright.compiler import Reason
from formwright.compiler.passes.fold_norms import fold_norms
from formwright.compiler.testing import assert_declines, capture_call, run_pass

from ..streams import RMS, D, N, T, Weights, assert_becomes, inputs, layer, rms


def test_weight_and_bias_go_into_every_linear():
    def before(p, x):
        h = layer(x, p.g, p.b)
        return F.linear(h, p.r1, p.s1) + F.linear(h.view(-1, D), p.r2).view(-1, T, N)

    def expected(p, x):
        h = layer(x)
        shift = p.s1 + (p.r1 * p.b).sum([1])
        first = F.linear(h, p.r1 * p.g, shift)
        return first + F.linear(h.view(-1, D), p.r2 * p.g, (p.r2 * p.b).sum([1])).view(-1, T, N)

    assert_becomes(fold_norms, before, expected)


def test_an_rms_norm_has_a_weight_only():
    def before(p, x):
        return F.linear(rms(x, p.g), p.r1)

    def expected(p, x):
        return F.linear(rms(x), p.r1 * p.g)

    assert_becomes(fold_norms, before, expected)


def test_layer_norm_scaling_goes_with_it():
    def before(p, x):
        return F.linear(layer(x, p.g, p.b) * 0.5, p.r1)

    def expected(p, x):
        return F.linear(layer(x), p.r1 * (p.g * 0.5), (p.r1 * (p.b * 0.5)).sum([1]))

    assert_becomes(fold_norms, before, expected)


def test_a_factor_alone_is_a_site():
    def before(p, x):
        return F.linear(layer(x) / 4, p.r1)

    def expected(p, x):
        return F.linear(layer(x), p.r1 * 0.25)

    assert_becomes(fold_norms, before, expected)


def test_weights_the_other_way_round():
    def before(p, x):
        return torch.addmm(p.c1, rms(x, p.g).view(-1, D), p.w1[:, :D])

    def expected(p, x):
        return torch.addmm(p.c1, rms(x).view(-1, D), p.w1[:, :D] * p.g.unsqueeze(1))

    assert_becomes(fold_norms, before, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_product_without_bias_gets_one_behind_it(dtype):
    def before(p, x):
        return layer(x, p.g, p.b) @ p.r1.t() + layer(x, p.g, p.b).view(-1, D).mm(p.r2.t()).sum()

    captured, real = capture_call(Weights(before, dtype), inputs(dtype))
    want = captured.module(*real)
    assert run_pass(fold_norms, captured.module, RMS).rewritten == 2
    torch.testing.assert_close(captured.module(*real), want, rtol=1e-4, atol=1e-4)


def test_tied_weights_are_folded_per_use():
    def before(p, x):
        return F.linear(rms(F.linear(x, p.r1) @ p.r2, p.g), p.r2)

    def expected(p, x):
        return F.linear(rms(F.linear(x, p.r1) @ p.r2), p.r2 * p.g)

    assert_becomes(fold_norms, before, expected)


DECLINED = {
    "the caller": (lambda p, x: layer(x, p.g, p.b), Reason.OTHER_READERS),
    "an activation": (lambda p, x: F.gelu(rms(x, p.g)), Reason.OTHER_READERS),
    "a linear and a sum": (
        lambda p, x: (lambda h: F.linear(h, p.r1) + h.sum())(rms(x, p.g)),
        Reason.OTHER_READERS,
    ),
    "as a weight": (lambda p, x: F.linear(p.r1, rms(x, p.g)[0]), Reason.OTHER_READERS),
    "a computed weight": (
        lambda p, x: F.linear(rms(x, p.g), p.r1 * x.sum()),
        Reason.OTHER_READERS,
    ),
    "a computed scale": (
        lambda p, x: F.linear(rms(x, p.g * x.sum()), p.r1),
        Reason.OTHER_READERS,
    ),
    "the axis is cut": (
        lambda p, x: F.linear(rms(x, p.g).view(-1, T, 2, D // 2), p.r1[:, : D // 2]),
        Reason.OTHER_READERS,
    ),
    "a convolution": (
        lambda p, x: F.conv1d(rms(x, p.g).transpose(1, 2), p.r1.unsqueeze(-1)),
        Reason.OTHER_READERS,
    ),
}


@pytest.mark.parametrize("name", DECLINED)
def test_it_stays_and_the_report_says_why(name):
    before, code = DECLINED[name]
    assert_declines(fold_norms, Weights(before), inputs(), code=code, options=RMS)


def test_dtypes_that_differ_are_left():
    def before(p, x):
        return F.linear(rms(x, p.g).double(), p.r1.double())

    assert_declines(fold_norms, Weights(before), inputs(), code=Reason.OTHER_READERS, options=RMS)
