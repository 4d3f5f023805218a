"""fuse_attention as Before / Expected, and the near misses that it must leave alone."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from formwright.compiler import Reason
from formwright.compiler.graph import fake, infer, op_name
from formwright.compiler.passes.attention import fuse_attention
from formwright.compiler.testing import assert_rewrites, capture_call, run_pass

B, H, L, S, K = 2, 3, 5, 5, 8


def qkv(dtype=torch.float32, grad=True):
    return tuple(torch.randn(B, H, n, K, dtype=dtype, requires_grad=grad) for n in (L, S, S))


def padding(dtype=torch.float32):
    keep = torch.rand(B, 1, 1, S) > 0.3
    return torch.where(keep, torch.zeros((), dtype=dtype), torch.finfo(dtype).min)


def sdpa(q, k, v, mask=None, scale=1.0):
    return F.scaled_dot_product_attention(q, k, v, mask, scale=scale)


def test_plain():
    def before(q, k, v):
        return F.softmax(q @ k.transpose(-1, -2), dim=-1) @ v * 2

    def expected(q, k, v):
        return sdpa(q, k, v) * 2

    assert_rewrites(fuse_attention, before, expected, *qkv())


@pytest.mark.parametrize(
    "scaled",
    [lambda s: s * 0.25, lambda s: s / 4, lambda s: 0.5 * s / 2.0, lambda s: s.mul(0.5) * 0.5],
    ids=["mul", "div", "both", "twice"],
)
def test_scales_are_multiplied(scaled):
    def before(q, k, v):
        return F.softmax(scaled(q @ k.transpose(-1, -2)), dim=3) @ v * 2

    def expected(q, k, v):
        return sdpa(q, k, v, scale=0.25) * 2

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


def test_dynamic_shapes():
    def before(q, k, v):
        return F.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1) @ v

    captured, real = capture_call(before, *qkv(), dynamic=True)
    want = captured.module(*real)[0]
    outcome = run_pass(fuse_attention, captured.module)

    assert captured.dynamic
    assert [d.code for d in outcome.declined] == [Reason.SCALE_NOT_CONSTANT]  # sqrt of a symbol
    torch.testing.assert_close(captured.module(*real)[0], want)


@pytest.mark.parametrize("reader", ["handed out", "read only", "viewed"])
def test_what_is_known_of_the_readers_stays_true(reader):
    """After the pass each value in the graph is what inferring it anew would give: a view still
    shares its storage with what it is a view of."""

    def before(q, k, v):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        out = F.softmax(q @ k.transpose(-1, -2), dim=-1) @ v
        if reader == "viewed":
            return out.view(B, H * L, K) * 2
        return out.transpose(1, 2) if reader == "handed out" else out.transpose(1, 2) * 2

    captured, _ = capture_call(before, *(torch.randn(B, L, H, K) for _ in range(3)))
    assert run_pass(fuse_attention, captured.module).rewritten == 1
    views = [n for n in captured.module.graph.nodes if op_name(n).split(".")[0] in VIEWS]
    for node in views:
        value, source = fake(node), fake(node.args[0])
        assert value.untyped_storage()._cdata == source.untyped_storage()._cdata
        again = infer(node.target, node.args, node.kwargs, ())
        assert value.stride() == again.stride()


VIEWS = ("transpose", "view")


def test_two_sites_that_compute_the_same_draw_twice():
    """R-Drop: the difference of two draws is not zero."""

    def attend(q, k, v):
        return F.dropout(F.softmax(q @ k.transpose(-1, -2), dim=-1), 0.5, True) @ v

    def before(q, k, v):
        return attend(q, k, v) - attend(q, k, v)

    captured, real = capture_call(before, *qkv(grad=False))
    assert run_pass(fuse_attention, captured.module).rewritten == 2
    assert captured.module(*real)[0].abs().max() > 0


def test_two_results_are_two_tensors():
    def before(q, k, v):
        first = F.softmax(q @ k.transpose(-1, -2), dim=-1) @ v
        return first, F.softmax(q @ k.transpose(-1, -2), dim=-1) @ v

    captured, real = capture_call(before, *qkv(grad=False))
    assert run_pass(fuse_attention, captured.module).rewritten == 2
    first, second = captured.module(*real)
    assert first.data_ptr() != second.data_ptr()
