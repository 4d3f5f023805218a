"""Masks: proven by the graph, looked at while compiling, looked at in each call, or declined."""

import pytest
import torch
from torch.nn import functional as F

from formwright.compiler import Reason, collect
from formwright.compiler.passes.attention import fuse_attention
from formwright.compiler.testing import assert_declines, capture_call, run_pass

B, H, L, S, K = 2, 3, 5, 5, 8


def qkv(dtype=torch.float32, grad=True):
    return tuple(torch.randn(B, H, n, K, dtype=dtype, requires_grad=grad) for n in (L, S, S))


def mask_of_the_caller(q, k, v, mask):
    return F.softmax(q @ k.transpose(-1, -2) + mask, dim=-1) @ v


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
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=5e-5, equal_nan=True)

    assert report.row("fuse_attention").rewritten == 1
    assert [v.name for v in report.variants] == ["general"]


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


def test_a_mask_of_activations(compile_eager):
    def before(q, k, v):
        return F.softmax(q @ k.transpose(-1, -2) + q @ k.transpose(-1, -2).tanh(), dim=-1) @ v

    inputs = qkv()
    with collect() as report:
        got = compile_eager(before)(*inputs)

    torch.testing.assert_close(got, before(*inputs))
    assert report.row("fuse_attention").rewritten == 1


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


LOWEST = torch.finfo(torch.float32).min
SPELLINGS = {
    "where of two numbers": lambda keep: torch.where(keep, 0.0, LOWEST),
    "where, the other way round": lambda keep: torch.where(~keep, LOWEST, 0.0),
    "where of zeros": lambda keep: torch.where(keep, torch.zeros(L, S), float("-inf")),
    "filled zeros": lambda keep: torch.zeros(L, S).masked_fill(~keep, -1e38),
    "broadcast": lambda keep: torch.where(keep, 0.0, LOWEST)[None, None].expand(B, 1, L, S),
    "visible scores are moved": lambda keep: torch.where(keep, 1.0, LOWEST),
    "hidden scores are only lowered": lambda keep: torch.where(keep, 0.0, -1e5),
    "hidden scores are raised": lambda keep: torch.where(keep, 0.0, 1e38),
    "a NaN": lambda keep: torch.where(keep, 0.0, float("nan")),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_mask_of_the_caller_made_a_bias(spelling, compile_eager):
    def before(q, k, v, keep):
        return mask_of_the_caller(q, k, v, SPELLINGS[spelling](keep))

    with collect() as report:
        compiled = compile_eager(before)
        for last in (True, False):  # the last query sees a key, or none
            keep = torch.ones(L, S, dtype=torch.bool).tril()
            keep[-1] &= last
            given = (*qkv(grad=False), keep)
            torch.testing.assert_close(compiled(*given), before(*given), equal_nan=True)

    assert report.row("fuse_attention").rewritten == 1
