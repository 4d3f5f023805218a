"""The linear recurrence: its chunked form, its steps and its definition are the same numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from formwright.search.blocks.recurrence import (
    recur_chunked,
    recur_naive,
    recur_step,
    segment_sums,
)

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def draw(tokens, heads=2, width=3, state=4, batch=2, seed=0, groups=1):
    """v, log_a, k, q, and a state to start from, in double precision."""
    rng = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64).requires_grad_()

    log_a = (-randn(batch, tokens, heads).exp()).detach().requires_grad_()
    v, start = randn(batch, tokens, heads, width), randn(batch, heads, width, state)
    k, q = (randn(batch, tokens, groups, state) for _ in range(2))
    return v, log_a, k, q, start


def by_hand():
    """The numbers of the hand check: one head, widths of 1."""
    v, a, k, q = ([1, 2, 3, 4], [0.5, 0.5, 0.25, 0.5], [1, 1, 2, 1], [1, 2, 1, 0.5])
    v, a, k, q = (torch.tensor(x, dtype=torch.float64).view(1, 4, 1, 1) for x in (v, a, k, q))
    return v, a[..., 0].log(), k, q


@given(
    tokens=st.integers(1, 20),
    chunk=st.integers(1, 24),
    heads=st.sampled_from([(1, 1), (2, 1), (3, 1), (3, 3), (4, 2)]),
    width=st.integers(1, 3),
    state=st.integers(1, 4),
    started=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_all_forms_are_the_same(tokens, chunk, heads, width, state, started, seed):
    heads, groups = heads
    v, log_a, k, q, start = draw(tokens, heads, width, state, seed=seed, groups=groups)
    first = start if started else None
    inputs = [v, log_a, k, q, *([start] if started else [])]

    want = recur_naive(v, log_a, k, q, first)
    got = recur_chunked(v, log_a, k, q, chunk, first)

    torch.testing.assert_close(got, want, **CLOSE)
    weights = [torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y).cos() for y in want]
    torch.testing.assert_close(
        torch.autograd.grad(got, inputs, weights),
        torch.autograd.grad(want, inputs, weights),
        **CLOSE,
    )


@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 4, 9])
def test_by_hand(chunk):
    inputs = by_hand()
    y, last = recur_naive(*inputs) if chunk is None else recur_chunked(*inputs, chunk)

    assert y.flatten().tolist() == pytest.approx([1, 5, 6.625, 3.65625])
    assert last.item() == pytest.approx(7.3125)


def test_the_matrix_by_hand():
    v, log_a, k, q = by_hand()
    decay = segment_sums(log_a[0, :, 0]).exp()

    matrix = decay * (q[0, :, 0] @ k[0, :, 0].T)

    want = [[1, 0, 0, 0], [1, 2, 0, 0], [0.125, 0.25, 2, 0], [0.03125, 0.0625, 0.5, 0.5]]
    torch.testing.assert_close(matrix, torch.tensor(want, dtype=torch.float64))
    torch.testing.assert_close(matrix @ v[0, :, 0], recur_naive(v, log_a, k, q)[0][0, :, 0])


def test_without_decay_it_is_linear_attention():
    x, log_a, b, c, _ = draw(7)

    y, _ = recur_chunked(x, log_a * 0, b, c, 3)

    scores = torch.einsum("btgn,bsgn->bts", c, b).tril()
    torch.testing.assert_close(y, torch.einsum("bts,bshp->bthp", scores, x), **CLOSE)


def test_heads_of_a_group_share_keys_and_queries():
    v, log_a, k, q, _ = draw(7, heads=4, groups=2)
    own = [x.repeat_interleave(2, 2) for x in (k, q)]

    torch.testing.assert_close(
        recur_chunked(v, log_a, k, q, 3), recur_naive(v, log_a, *own), **CLOSE
    )


def test_a_step_is_one_token():
    v, log_a, k, q, start = draw(1, heads=4, groups=2)

    y, h = recur_step(v[:, 0], log_a[:, 0], k[:, 0], q[:, 0], start)

    write = torch.einsum("bhp,bhn->bhpn", v[:, 0], k[:, 0].repeat_interleave(2, 1))
    want = log_a[:, 0, :, None, None].exp() * start + write
    torch.testing.assert_close(h, want, **CLOSE)
    read = torch.einsum("bhpn,bhn->bhp", want, q[:, 0].repeat_interleave(2, 1))
    torch.testing.assert_close(y, read, **CLOSE)


def test_it_goes_on_from_a_state():
    x, log_a, b, c, _ = draw(11)
    whole, end = recur_chunked(x, log_a, b, c, 4)

    head, middle = recur_chunked(*(v[:, :5] for v in (x, log_a, b, c)), 4)
    tail, last = recur_chunked(*(v[:, 5:] for v in (x, log_a, b, c)), 4, middle)

    torch.testing.assert_close(torch.cat([head, tail], 1), whole, **CLOSE)
    torch.testing.assert_close(last, end, **CLOSE)


@pytest.mark.parametrize("decay", ["strong", "strong, then weak", "total", "none"])
def test_extreme_decays_are_exact(decay):
    x, _, b, c, _ = draw(16)
    log_a = torch.full((2, 16, 2), -1e4 if "strong" in decay else 0.0, dtype=torch.float64)
    if decay == "strong, then weak":
        log_a[:, 4:] = -1e-3  # a difference of running sums of -4e4 would lose this in fp32
    if decay == "total":
        log_a[:, 5::3] = -torch.inf
    want, end = recur_naive(x, log_a, b, c)
    singles = [v.detach().float().requires_grad_() for v in (x, log_a, b, c)]

    y, last = recur_chunked(*singles, 8)

    torch.testing.assert_close(y.double(), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(last.double(), end, rtol=1e-5, atol=1e-5)
    for gradient in torch.autograd.grad(y.sum() + last.sum(), singles):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_dtype_is_kept(dtype):
    x, log_a, b, c, _ = (v.detach().to(dtype) for v in draw(9))

    for y, last in (recur_naive(x, log_a, b, c), recur_chunked(x, log_a, b, c, 4)):
        assert y.dtype == dtype
        assert last.dtype == torch.float32


def test_in_half_precision_it_still_forgets():
    """1 - 1/512 is 1 in bfloat16."""
    v, k, q = (torch.ones(1, 600, 1, 1, dtype=torch.bfloat16) for _ in range(3))
    log_a = torch.full((1, 600, 1), math.log(1 - 1 / 512), dtype=torch.float64)
    want, _ = recur_naive(v.double(), log_a, k.double(), q.double())

    for y, _ in (recur_naive(v, log_a, k, q), recur_chunked(v, log_a.bfloat16(), k, q, 64)):
        assert y[0, -1].item() == pytest.approx(want[0, -1].item(), rel=1e-2)
