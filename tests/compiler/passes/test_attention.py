"""fuse_attention as Before / Expected, and the near misses that it must leave alone."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from formwright.compiler import Reason, collect
from formwright.compiler.passes.attention import fuse_attention
from formwright.compiler.testing import assert_declines, assert_rewrites, capture_call, run_pass

B, H, L, S, K = 2, 3, 5, 5, 8


def qkv(dtype=torch.float32, grad=True):
    return tuple(torch.randn(B, H, n, K, dtype=dtype, requires_grad=grad) for n in (L, S, S))


def padding(dtype=torch.float32):
    keep = torch.rand(B, 1, 1, S) > 0.3
    return torch.where(keep, torch.zeros((), dtype=dtype), torch.finfo(dtype).min)


def sdpa(q, k, v, mask=None, scale=1.0):
    return F.scaled_dot_product_attention(
        q, k.transpose(-1, -2).transpose(-2, -1), v, mask, scale=scale
    )


def test_plain():
    def before(q, k, v):
        return F.softmax(q @ k.transpose(-1, -2), dim=-1) @ v

    def expected(q, k, v):
        return sdpa(q, k, v)

    assert_rewrites(fuse_attention, before, expected, *qkv())


@pytest.mark.parametrize(
    "scaled",
    [lambda s: s * 0.25, lambda s: s / 4, lambda s: 0.5 * s / 2.0, lambda s: s.mul(0.5) * 0.5],
    ids=["mul", "div", "both", "twice"],
)
def test_scales_are_multiplied(scaled):
    def before(q, k, v):
        return F.softmax(scaled(q @ k.transpose(-1, -2)), dim=3) @ v

    def expected(q, k, v):
        return sdpa(q, k, v, scale=0.25)

    assert_rewrites(fuse_attention, before, expected, *qkv())


@pytest.mark.parametrize("right", [True, False])
def test_additive_mask_on_either_side(right):
    keep = torch.rand(B, 1, 1, S) > 0.3

    def mask_of(q, keep):
        return torch.where(keep, torch.zeros([], dtype=q.dtype), -1e30)

    def before(q, k, v, keep):
        scores = q @ k.transpose(-1, -2) * 0.3
        mask = mask_of(q, keep)
        return F.softmax(scores + mask if right else mask + scores, dim=-1) @ v

    def expected(q, k, v, keep):
        mask = mask_of(q, keep)
        return sdpa(q, k, v, mask, scale=0.3)

    assert_rewrites(fuse_attention, before, expected, *qkv(grad=False), keep)


def test_the_layout_around_it_is_free():
    w = nn.Linear(16, 48)

    def before(x):
        q, k, v = w(x).view(B, L, 3, 2, K).permute(2, 0, 3, 1, 4).unbind(0)
        out = F.softmax((q @ k.permute(0, 1, 3, 2)) / math.sqrt(K), dim=-1) @ v
        return out.transpose(1, 2).reshape(B, L, 16)

    captured, real = capture_call(before, torch.randn(B, L, 16))
    want = captured.module(*real)[0]
    assert run_pass(fuse_attention, captured.module).rewritten == 1
    torch.testing.assert_close(captured.module(*real)[0], want)


def test_a_reader_that_needs_the_strides_gets_them():
    def before(q, k, v):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        out = F.softmax(q @ k.transpose(-1, -2), dim=-1) @ v
        return out.view(B, H * L, K) * 2

    captured, real = capture_call(before, *(torch.randn(B, L, H, K) for _ in range(3)))
    want = captured.module(*real)[0]
    assert run_pass(fuse_attention, captured.module).rewritten == 1
    torch.testing.assert_close(captured.module(*real)[0], want)


def test_the_caller_gets_the_same_strides():
    def before(q, k, v):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.softmax(q @ k.transpose(-1, -2), dim=-1) @ v

    captured, real = capture_call(before, *(torch.randn(B, L, H, K) for _ in range(3)))
    want = captured.module(*real)[0]
    assert run_pass(fuse_attention, captured.module).rewritten == 1

    assert captured.module(*real)[0].stride() == want.stride()


def test_dropout_keeps_its_distribution():
    def before(q, k, v):
        return F.dropout(F.softmax(q @ k.transpose(-1, -2), dim=-1), 0.4, True) @ v

    q, k, _ = qkv(grad=False)
    v = torch.ones(B, H, S, K)  # rows of the probabilities sum to one, so the mean is one
    captured, real = capture_call(before, q, k, v)
    outcome = run_pass(fuse_attention, captured.module)
    mean = torch.stack([captured.module(*real)[0] for _ in range(400)]).mean()

    assert outcome.rewritten == 1
    assert abs(mean.item() - 1.0) < 0.03


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_with_softmax_in_fp32(dtype):
    def before(q, k, v):
        scores = q @ k.transpose(-1, -2) * 0.3
        return F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype) @ v

    captured, real = capture_call(before, *qkv(dtype, grad=False))
    want = captured.module(*real)[0]
    assert run_pass(fuse_attention, captured.module).rewritten == 1
    torch.testing.assert_close(captured.module(*real)[0], want, atol=3e-2, rtol=3e-2)


def other_axis(q, k, v):
    return F.softmax(q @ k.transpose(-1, -2), dim=-2) @ v


def head_axis(q, k, v):
    return F.softmax(q @ k.transpose(-1, -2), dim=1) @ v


def probabilities_returned(q, k, v):
    p = F.softmax(q @ k.transpose(-1, -2), dim=-1)
    return p @ v, p


def scores_read(q, k, v):
    s = q @ k.transpose(-1, -2)
    return F.softmax(s * 0.5, dim=-1) @ v + s.sum()


def tensor_scale(q, k, v):
    return F.softmax(q @ k.transpose(-1, -2) * q.abs().mean(), dim=-1) @ v


def negative_scale(q, k, v):
    return F.softmax(q @ k.transpose(-1, -2) * -0.5, dim=-1) @ v


def soft_cap(q, k, v):
    return F.softmax(torch.tanh(q @ k.transpose(-1, -2)) * 5, dim=-1) @ v


def scale_behind_the_mask(q, k, v):
    mask = torch.zeros(L, S, dtype=q.dtype)
    return F.softmax((q @ k.transpose(-1, -2) + mask) * 0.5, dim=-1) @ v


def added_with_alpha(q, k, v):
    mask = torch.zeros(L, S, dtype=q.dtype)
    return F.softmax(torch.add(q @ k.transpose(-1, -2), mask, alpha=2), dim=-1) @ v


def mask_of_the_caller(q, k, v, mask):
    return F.softmax(q @ k.transpose(-1, -2) + mask, dim=-1) @ v


def a_row_that_is_hidden(q, k, v):
    seen = torch.ones(L, S, dtype=torch.bool).tril(-1)
    mask = torch.zeros(L, S, dtype=q.dtype).masked_fill(~seen, float("-inf"))
    return F.softmax(q @ k.transpose(-1, -2) + mask, dim=-1) @ v


def a_mask_written_through_a_view(q, k, v):
    mask = torch.zeros(L, S, dtype=q.dtype)
    mask[2:4] = float("-inf")
    return F.softmax(q @ k.transpose(-1, -2) + mask, dim=-1) @ v


def a_scale_written_through_a_view(q, k, v):
    scale = torch.full((), 0.5)
    scale.view(1).fill_(3.0)
    return F.softmax(q @ k.transpose(-1, -2) * scale, dim=-1) @ v


def a_number_divided_by_scores(q, k, v):
    return F.softmax(2.0 / (q @ k.transpose(-1, -2)), dim=-1) @ v


def scores_edited_in_place(q, k, v):
    s = q @ k.transpose(-1, -2)
    s[..., 0] = 0
    return F.softmax(s, dim=-1) @ v


def values_edited_in_place(q, k, v):
    v = v * 1
    p = F.softmax(q @ k.transpose(-1, -2), dim=-1)
    v.add_(1)
    return p @ v


def query_edited_in_place(q, k, v):
    q = q * 1
    s = q @ k.transpose(-1, -2)
    q.zero_()
    return F.softmax(s, dim=-1) @ v


def probabilities_on_the_right(q, k, v):
    return v.transpose(-1, -2) @ F.softmax(q @ k.transpose(-1, -2), dim=-1)


def batched_values_only(q, k, v):
    return F.softmax(q[:1] @ k[:1].transpose(-1, -2), dim=-1) @ v


def three_dimensional(q, k, v):
    return F.softmax(q[0] @ k[0].transpose(-1, -2), dim=-1) @ v[0]


def narrow_probabilities(q, k, v):
    p = F.softmax(q @ k.transpose(-1, -2), dim=-1).to(torch.bfloat16).to(q.dtype)
    return p @ v


NEAR_MISSES = {
    other_axis: Reason.OTHER_AXIS,
    head_axis: Reason.OTHER_AXIS,
    probabilities_returned: Reason.OTHER_READERS,
    scores_read: Reason.OTHER_READERS,
    tensor_scale: Reason.SCALE_NOT_CONSTANT,
    negative_scale: Reason.SCALE_NOT_CONSTANT,
    soft_cap: Reason.UNKNOWN_OP,
    scale_behind_the_mask: Reason.UNKNOWN_OP,
    added_with_alpha: Reason.UNKNOWN_OP,
    a_row_that_is_hidden: Reason.MASK_NOT_PROVEN,
    a_mask_written_through_a_view: Reason.MASK_NOT_PROVEN,
    a_scale_written_through_a_view: Reason.MUTATED,
    a_number_divided_by_scores: Reason.UNKNOWN_OP,
    scores_edited_in_place: Reason.OTHER_READERS,
    values_edited_in_place: Reason.MUTATED,
    query_edited_in_place: Reason.MUTATED,
    probabilities_on_the_right: Reason.NOT_A_PRODUCT,
    batched_values_only: Reason.SHAPES,
    three_dimensional: Reason.SHAPES,
    narrow_probabilities: Reason.DTYPES,
}


@pytest.mark.parametrize("before", NEAR_MISSES, ids=lambda f: f.__name__)
def test_near_misses_stay_and_say_why(before):
    assert_declines(fuse_attention, before, *qkv(grad=False), code=NEAR_MISSES[before])


def test_a_constant_mask_is_looked_at_while_compiling():
    """A causal mask of -inf hides keys and no row."""

    def before(q, k, v):
        causal = torch.ones(L, S, dtype=torch.bool).tril()
        mask = torch.zeros(L, S, dtype=q.dtype).masked_fill(~causal, float("-inf"))
        return F.softmax(q @ k.transpose(-1, -2) + mask, dim=-1) @ v

    captured, real = capture_call(before, *qkv())
    want = captured.module(*real)[0]
    assert run_pass(fuse_attention, captured.module).rewritten == 1
    torch.testing.assert_close(captured.module(*real)[0], want)


MASKS = {
    "open": torch.zeros(L, S),
    "causal": torch.zeros(L, S).masked_fill(torch.ones(L, S).triu(1).bool(), float("-inf")),
    "a hidden row": torch.zeros(L, S).index_fill(0, torch.tensor([1]), float("-inf")),
    "a hidden row, finite": torch.zeros(L, S).index_fill(0, torch.tensor([1]), -1e9),
    "NaN": torch.zeros(L, S).index_fill(0, torch.tensor([1]), float("nan")),
    "infinite": torch.zeros(L, S).index_fill(0, torch.tensor([1]), float("inf")),
    "a large bias": torch.full((L, S), 1e6),
}


@pytest.mark.parametrize("train", [False, True])
def test_a_mask_of_the_caller_is_looked_at_in_each_call(train, compile_eager):
    compiled = compile_eager(mask_of_the_caller)
    inputs = qkv(grad=train)
    with collect() as report:
        for mask in MASKS.values():
            got, want = compiled(*inputs, mask), mask_of_the_caller(*inputs, mask)
            torch.testing.assert_close(got, want, equal_nan=True)
            if train:
                mine = torch.autograd.grad(got.square().sum(), inputs)
                theirs = torch.autograd.grad(want.square().sum(), inputs)
                torch.testing.assert_close(mine, theirs, equal_nan=True)

    assert report.row("fuse_attention").rewritten == 1
    assert [v.name for v in report.variants] == ["rows visible", "general"]


def test_a_learned_bias_gets_its_gradient(compile_eager):
    bias = torch.nn.Parameter(torch.randn(H, L, S))
    module = torch.nn.ParameterList([bias])

    def before(q, k, v):
        return F.softmax(q @ k.transpose(-1, -2) + module[0], dim=-1) @ v

    inputs = qkv()
    with collect() as report:
        got = compile_eager(before)(*inputs)
    want = before(*inputs)
    mine = torch.autograd.grad(got.square().sum(), (*inputs, bias))
    theirs = torch.autograd.grad(want.square().sum(), (*inputs, bias))

    torch.testing.assert_close(mine, theirs)
    assert report.row("fuse_attention").rewritten == 1


def test_a_mask_of_activations_is_not_looked_at(compile_eager):
    def before(q, k, v):
        return F.softmax(q @ k.transpose(-1, -2) + q @ k.transpose(-1, -2).tanh(), dim=-1) @ v

    with collect() as report:
        compile_eager(before)(*qkv())

    assert [d.code for d in report.declines()] == [Reason.MASK_NOT_PROVEN]


def test_a_mask_of_the_caller_is_not_proven_by_the_graph():
    mask = torch.full((L, S), float("-inf")).triu(1)

    assert_declines(fuse_attention, mask_of_the_caller, *qkv(), mask, code=Reason.MASK_NOT_PROVEN)


def test_a_fill_that_overflows_the_dtype_is_not_finite():
    keep = torch.rand(B, 1, 1, S) > 0.3

    def before(q, k, v, keep):
        mask = torch.where(keep, torch.zeros((), dtype=q.dtype), -1e30)
        return F.softmax(q @ k.transpose(-1, -2) + mask, dim=-1) @ v

    half = qkv(torch.float16, grad=False)
    assert_declines(fuse_attention, before, *half, keep, code=Reason.MASK_NOT_PROVEN)


def test_autocast_that_would_cast_the_mask_is_declined():
    keep = torch.rand(B, 1, 1, S) > 0.3

    def before(q, k, v, keep):
        with torch.autocast("cpu", torch.bfloat16):
            mask = torch.zeros(B, 1, 1, S).masked_fill(~keep, -1e38)
            return F.softmax(q @ k.transpose(-1, -2) + mask, dim=-1) @ v

    assert_declines(fuse_attention, before, *qkv(grad=False), keep, code=Reason.AUTOCAST)


def test_a_softmax_without_products_is_no_site():
    def before(x):
        return F.softmax(x @ x.transpose(-1, -2), dim=-1)

    captured, _ = capture_call(before, torch.randn(2, 4, 4))

    assert run_pass(fuse_attention, captured.module).sites == 0


def test_dynamic_shapes():
    def before(q, k, v):
        return F.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1) @ v

    captured, real = capture_call(before, *qkv(), dynamic=True)
    want = captured.module(*real)[0]
    outcome = run_pass(fuse_attention, captured.module)

    assert captured.dynamic
    assert [d.code for d in outcome.declined] == [Reason.SCALE_NOT_CONSTANT]  # sqrt of a symbol
    torch.testing.assert_close(captured.module(*real)[0], want)
