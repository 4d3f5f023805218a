"""The operator of our own against its definition: blocks, gradients, second gradients, plans."""

import math

import pytest
import torch

from formwright.compiler.operators import attention, mask_plan
from formwright.compiler.operators.attention_blocks import Kind, blocks
from formwright.compiler.operators.attention_formula import Terms, attend
from formwright.compiler.operators.mask_plan import EXACT, NAN, PLAIN

B, H, G, K = 3, 4, 2, 8
LOW = torch.finfo(torch.float32).min


def band(length, keys, width):
    i, j = torch.arange(length)[:, None], torch.arange(keys)
    return ((j <= i) & (j > i - width))[None, None]


def padding(keys):
    keep = torch.ones(B, 1, 1, keys, dtype=torch.bool)
    keep[0, ..., keys // 2 :] = False
    keep[1, ..., : keys // 3] = False
    return keep


def causal(length, keys):
    return band(length, keys, keys + length)


# name -> (length, keys) -> (bias, mask); left padding makes queries that see no key
MASKS = {
    "nothing": lambda n, s: (None, None),
    "padding": lambda n, s: (None, padding(s)),
    "causal": lambda n, s: (None, causal(n, s)),
    "causal and padding": lambda n, s: (None, causal(n, s) & padding(s)),
    "window": lambda n, s: (None, band(n, s, 70)),
    "window and padding": lambda n, s: (None, band(n, s, 70) & padding(s)),
    "holes": lambda n, s: (None, torch.rand(B, 1, n, s) > 0.5),
    "added padding": lambda n, s: (torch.where(padding(s), 0.0, LOW), None),
    "added, causal": lambda n, s: (torch.where(causal(n, s) & padding(s), 0.0, LOW), None),
    "bias": lambda n, s: (torch.randn(1, H, n, s), None),
    "bias and mask": lambda n, s: (torch.randn(1, H, n, s), causal(n, s) & padding(s)),
    "hidden by both": lambda n, s: (torch.where(padding(s), 0.0, LOW), causal(n, s)),
}


def operands(length, keys, value_width, dtype=torch.float64):
    shapes = ((B, H, length, K), (B, G, keys, K), (B, G, keys, value_width))
    return [torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes]


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(("length", "keys", "value_width"), [(300, 300, K), (130, 260, 5)])
def test_blocks_are_the_definition(name, length, keys, value_width):
    bias, mask = MASKS[name](length, keys)
    inputs = operands(length, keys, value_width)
    if bias is not None:
        bias = bias.double().requires_grad_(bias.shape[1] == H)
    plan = None if bias is None and mask is None else mask_plan(bias, mask, -1e30, True)

    got = attention(*inputs, bias, mask, plan, 0.3, -1e30, False)[0]
    want = attend(*inputs, Terms(bias, mask, 0.3, -1e30))

    g = torch.randn_like(want)
    leaves = [*inputs, *([bias] if bias is not None and bias.requires_grad else [])]
    mine = torch.autograd.grad(got, leaves, g)
    theirs = torch.autograd.grad(want, leaves, g)
    torch.testing.assert_close((got, *mine), (want, *theirs), rtol=1e-10, atol=1e-10)


def test_blocks_leave_out_what_is_hidden():
    """A window of 64 on 2048 keys: a small part of all pairs."""
    plan = mask_plan(None, band(2048, 2048, 64), -math.inf, False)
    found = blocks(plan, B, 2048, 2048)
    area = sum((b.rows.stop - b.rows.start) * (b.keys.stop - b.keys.start) for b in found)

    assert {b.kind for b in found} <= {Kind.BAND, Kind.CAUSAL}
    assert area < 0.2 * 2048 * 2048


@pytest.mark.parametrize(
    ("mask", "kinds"),
    [
        (torch.ones(1, 1, 1, 96, dtype=torch.bool), {Kind.ALL}),
        (causal(96, 96), {Kind.CAUSAL}),
        (torch.rand(1, 1, 96, 96) > 0.5, {Kind.DENSE, Kind.BAND}),
    ],
    ids=["open", "causal", "holes"],
)
def test_what_a_mask_is(mask, kinds):
    found = blocks(mask_plan(None, mask, -1e30, False), 2, 96, 96)

    assert {b.kind for b in found} <= kinds


def test_rows_without_keys():
    """Hidden by a finite fill: by the formula. By -inf: NaN, and the whole sequence is."""
    mask = padding(12) & causal(12, 12)
    finite = mask_plan(None, mask, -1e30, False)
    infinite = mask_plan(None, mask, -math.inf, False)

    assert finite[1, 0, 0].tolist()[2] == infinite[1, 0, 0].tolist()[2] == EXACT
    assert infinite[1, 0, 0, 1] == NAN != finite[1, 0, 0, 1]
    assert finite[2, 0, :, 2].tolist() == [PLAIN] * 12


def test_a_fill_that_scores_could_reach_is_checked():
    q, k, v = operands(6, 6, K)
    mask = torch.rand(1, 1, 6, 6) > 0.4
    for size in (1.0, 1e4):
        big = (q * size, k, v)
        plan = mask_plan(None, mask, -1e4, False)
        got = attention(*big, None, mask, plan, 1.0, -1e4, False)[0]
        torch.testing.assert_close(got, attend(*big, Terms(None, mask, 1.0, -1e4)))


@pytest.mark.parametrize("masked", ["causal", "mask", "bias"])
def test_second_derivatives(masked):
    shapes = ((1, 2, 3, 2), (1, 1, 3, 2), (1, 1, 3, 2), (1, 2, 3, 3))
    *inputs, bias = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes)
    mask = causal(3, 3) if masked == "mask" else None
    given = bias if masked == "bias" else None
    plan = mask_plan(given, mask, -1e30, True) if masked != "causal" else None

    def function(q, k, v, b):
        b = b if masked == "bias" else None
        return attention(q, k, v, b, mask, plan, 0.3, -1e30, masked == "causal")[0]

    assert torch.autograd.gradgradcheck(function, (*inputs, bias), check_undefined_grad=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    mask = causal(40, 40) & padding(40)
    bias = torch.where(mask, 0.0, torch.finfo(dtype).min).to(dtype)
    half = operands(40, 40, K, dtype)
    wide = [x.detach().float() for x in half]
    plan = mask_plan(bias, None, -math.inf, False)

    got = attention(*half, bias, None, plan, 0.3, -math.inf, False)[0]
    want = attend(*wide, Terms(bias.float(), None, 0.3, -math.inf))
    sees = mask.any(-1)[:, 0, :, None].unsqueeze(1).expand_as(want)
    torch.testing.assert_close(got[sees].float(), want[sees], atol=2e-2, rtol=2e-2)
