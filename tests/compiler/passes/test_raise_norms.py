"""raise_norms: every way to spell a norm becomes one call; what only looks like one stays."""

import pytest
import torch
from torch.nn import functional as F

from formwright.compiler import Reason
from formwright.compiler.passes.raise_norms import raise_norms
from formwright.compiler.testing import assert_declines, assert_rewrites, capture_call, run_pass

B, T, D, EPS = 2, 3, 8, 1e-6


def rms(x, w, b):
    return F.rms_norm(x, [D], w, EPS) + b


def plain(x, w, b):
    return F.rms_norm(x, [D], None, EPS) * w.sum() + b


def layer(x, w, b):
    return F.layer_norm(x, [D], w, b, EPS)


def mean(x):
    return x.mean(-1, keepdim=True)


def pow_rsqrt(x, w, b):
    return w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)) + b


def product_and_division(x, w, b):
    return x / torch.sqrt((x * x).mean(-1, True) + EPS) * w + b


def square_and_reciprocal(x, w, b):
    return x * (torch.square(x).mean(-1, keepdim=True) + EPS).sqrt().reciprocal() * w + b


def negative_power(x, w, b):
    return x * (EPS + mean(x**2)) ** -0.5 * w + b


def one_over_root(x, w, b):
    return x * (1 / torch.sqrt(mean(x**2) + EPS)) * w + b


def unsqueezed(x, w, b):
    return x * torch.rsqrt(x.pow(2).mean(-1) + EPS).unsqueeze(-1) * w + b


def scaled_otherwise(x, w, b):
    return x * torch.rsqrt(mean(x**2) + EPS) * w.sum() + b


def by_hand(x, w, b):
    return (x - mean(x)) / torch.sqrt(mean((x - mean(x)) ** 2) + EPS) * w + b


def centred_once(x, w, b):
    x = x - mean(x)
    return x * torch.rsqrt(mean(x * x) + EPS) * w + b


def variance(x, w, b):
    return (x - mean(x)) * torch.rsqrt(x.var(-1, unbiased=False, keepdim=True) + EPS) * w + b


def variance_and_mean(x, w, b):
    var, m = torch.var_mean(x, -1, correction=0, keepdim=True)
    return (x - m) * torch.rsqrt(var + EPS) * w + b


def variance_of_centred(x, w, b):
    x = x - mean(x)
    return w * (x / (x.var(-1, correction=0, keepdim=True) + EPS).sqrt()) + b


SPELLINGS = {
    rms: (
        pow_rsqrt,
        product_and_division,
        square_and_reciprocal,
        negative_power,
        one_over_root,
        unsqueezed,
    ),
    plain: (scaled_otherwise,),
    layer: (by_hand, centred_once, variance, variance_and_mean, variance_of_centred),
}
CASES = [(before, wanted) for wanted, many in SPELLINGS.items() for before in many]


def inputs(dtype=torch.float32):
    made = torch.randn(B, T, D), torch.rand(D) + 0.5, torch.randn(D)
    return [x.to(dtype).requires_grad_() for x in made]


@pytest.mark.parametrize(("before", "expected"), CASES, ids=lambda f: f.__name__)
def test_a_spelling_becomes_one_call(before, expected):
    assert_rewrites(raise_norms, before, expected, *inputs())


def test_the_number_of_rows_may_be_known_at_run_time_only():
    for before, expected in ((pow_rsqrt, rms), (variance, layer)):
        x, w, b = inputs()
        torch._dynamo.maybe_mark_dynamic(x, 1)
        assert_rewrites(raise_norms, before, expected, x, w, b, double=False)


def test_a_weight_that_is_computed_is_a_weight():
    def before(x, w, b):
        return x * torch.rsqrt(mean(x**2) + EPS) * (1.0 + w) + b

    def expected(x, w, b):
        return F.rms_norm(x, [D], 1.0 + w, EPS) + b

    assert_rewrites(raise_norms, before, expected, *inputs())


def test_casts_around_a_norm_in_float32_stay():
    def before(x, w):
        wide = x.float()
        return w * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + EPS)).to(x.dtype)

    def expected(x, w):
        return w * F.rms_norm(x.float(), [D], None, EPS).to(x.dtype)

    x, w, _ = inputs(torch.bfloat16)
    assert_rewrites(raise_norms, before, expected, x, w, double=False)


def test_what_is_cast_for_the_mean_square_only():
    def before(x, w):  # as T5 does
        return x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + EPS)

    def expected(x, w):
        return F.rms_norm(x.float(), [D], None, EPS)

    x, w, _ = inputs(torch.bfloat16)
    assert_rewrites(raise_norms, before, expected, x, w, double=False)


LOOK_ALIKES = {
    "unbiased variance": lambda x: (x - mean(x)) * torch.rsqrt(x.var(-1, keepdim=True) + EPS),
    "eps outside of the root": lambda x: x / (mean(x**2).sqrt() + EPS),
    "another axis": lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + EPS),
    "two axes": lambda x: x * torch.rsqrt(x.pow(2).mean((1, 2), keepdim=True) + EPS),
    "of something else": lambda x: x * torch.rsqrt(mean((2 * x) ** 2) + EPS),
    "a mean of something else": lambda x: (
        (x - mean(2 * x)) * torch.rsqrt(x.var(-1, correction=0, keepdim=True) + EPS)
    ),
    "not centred": lambda x: x * torch.rsqrt(x.var(-1, correction=0, keepdim=True) + EPS),
    "a third power": lambda x: x * torch.rsqrt(mean(x**3) + EPS),
    "the root is not inverse": lambda x: x * torch.sqrt(mean(x**2) + EPS),
    "a sum": lambda x: x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + EPS),
    "the mean divided by itself": lambda x: (x + 1) / torch.sqrt(mean(x**2) + EPS),
    "an eps per row": lambda x: x * torch.rsqrt(mean(x**2) + x.abs().amax(-1, keepdim=True)),
    "broadcast": lambda x: x * torch.rsqrt(x.pow(2).mean(-1) + EPS)[0, 0],
}


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_a_look_alike_is_no_site(name):
    captured, _ = capture_call(LOOK_ALIKES[name], torch.randn(B, T, D))

    assert run_pass(raise_norms, captured.module).sites == 0


def test_half_precision_all_through_is_left():
    def before(x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)

    x = torch.randn(B, T, D, dtype=torch.bfloat16)
    assert_declines(raise_norms, before, x, code=Reason.DTYPES)


def test_what_is_written_in_place_is_left():
    def before(x):
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)
        y.add_(1)
        return y

    assert_declines(raise_norms, before, torch.randn(B, T, D), code=Reason.MUTATED)


def test_a_norm_that_loses_its_gradient_inside_is_left():
    def before(x):
        with torch.no_grad():
            r = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)
        return x * r

    x = torch.randn(B, T, D, requires_grad=True)
    assert_declines(raise_norms, before, x, code=Reason.GRADIENT_MODE)


def test_a_weight_that_somebody_else_reads_too_is_still_one():
    def before(x, w, b):
        y = x * torch.rsqrt(mean(x**2) + EPS)
        return y * w, y + b

    captured, real = capture_call(before, *inputs())
    want = before(*real)

    assert run_pass(raise_norms, captured.module).rewritten == 1
    torch.testing.assert_close(captured.module(*real), want)
