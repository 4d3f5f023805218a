"""Mamba-2: the chunked algorithm is the recurrence, and the layer is the one of the paper."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from formwright.search.blocks import Site
from formwright.search.blocks.mamba2 import (
    Config,
    Mamba2,
    segment_sums,
    ssd_chunked,
    ssd_naive,
)

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def draw(tokens, heads=2, width=3, state=4, batch=2, seed=0):
    """x, log_a, b, c, and a state to start from, in double precision."""
    rng = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64).requires_grad_()

    log_a = (-randn(batch, tokens, heads).exp()).detach().requires_grad_()
    x, start = randn(batch, tokens, heads, width), randn(batch, heads, width, state)
    return x, log_a, randn(batch, tokens, state), randn(batch, tokens, state), start


def by_hand():
    """The numbers of the hand check: one head, widths of 1."""
    x, a, b, c = ([1, 2, 3, 4], [0.5, 0.5, 0.25, 0.5], [1, 1, 2, 1], [1, 2, 1, 0.5])
    x, a, b, c = (torch.tensor(v, dtype=torch.float64).view(1, 4, 1) for v in (x, a, b, c))
    return x.unsqueeze(-1), a.log(), b, c


@given(
    tokens=st.integers(1, 20),
    chunk=st.integers(1, 24),
    heads=st.integers(1, 3),
    width=st.integers(1, 3),
    state=st.integers(1, 4),
    started=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_chunked_is_the_recurrence(tokens, chunk, heads, width, state, started, seed):
    x, log_a, b, c, start = draw(tokens, heads, width, state, seed=seed)
    first = start if started else None
    inputs = [x, log_a, b, c, *([start] if started else [])]

    want = ssd_naive(x, log_a, b, c, first)
    got = ssd_chunked(x, log_a, b, c, chunk, first)

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
    y, last = ssd_naive(*inputs) if chunk is None else ssd_chunked(*inputs, chunk)

    assert y.flatten().tolist() == pytest.approx([1, 5, 6.625, 3.65625])
    assert last.item() == pytest.approx(7.3125)


def test_the_matrix_by_hand():
    x, log_a, b, c = by_hand()
    decay = segment_sums(log_a[0, :, 0]).exp()

    matrix = decay * (c[0] @ b[0].T)

    want = [[1, 0, 0, 0], [1, 2, 0, 0], [0.125, 0.25, 2, 0], [0.03125, 0.0625, 0.5, 0.5]]
    torch.testing.assert_close(matrix, torch.tensor(want, dtype=torch.float64))
    torch.testing.assert_close((matrix @ x[0, :, 0]), ssd_naive(x, log_a, b, c)[0][0, :, 0])


def test_without_decay_it_is_linear_attention():
    x, log_a, b, c, _ = draw(7)

    y, _ = ssd_chunked(x, log_a * 0, b, c, 3)

    scores = (c @ b.transpose(1, 2)).tril()
    torch.testing.assert_close(y, torch.einsum("bts,bshp->bthp", scores, x), **CLOSE)


def test_it_goes_on_from_a_state():
    x, log_a, b, c, _ = draw(11)
    whole, end = ssd_chunked(x, log_a, b, c, 4)

    head, middle = ssd_chunked(*(v[:, :5] for v in (x, log_a, b, c)), 4)
    tail, last = ssd_chunked(*(v[:, 5:] for v in (x, log_a, b, c)), 4, middle)

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
    want, end = ssd_naive(x, log_a, b, c)
    singles = [v.detach().float().requires_grad_() for v in (x, log_a, b, c)]

    y, last = ssd_chunked(*singles, 8)

    torch.testing.assert_close(y.double(), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(last.double(), end, rtol=1e-5, atol=1e-5)
    for gradient in torch.autograd.grad(y.sum() + last.sum(), singles):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_dtype_is_kept(dtype):
    x, log_a, b, c, _ = (v.detach().to(dtype) for v in draw(9))

    for y, last in (ssd_naive(x, log_a, b, c), ssd_chunked(x, log_a, b, c, 4)):
        assert y.dtype == last.dtype == dtype


# --- the layer ------------------------------------------------------------------------------------

SITE = Site(width=6, grid=(3, 4))


def layer(**changed):
    torch.manual_seed(0)
    config = {"expand": 2, "head_width": 4, "state": 5, "conv": 3, "chunk": 4, **changed}
    return Mamba2(Config(**config), SITE).double()


def layer_by_hand(m, x):
    """One image [T, D] through the layer, token by token."""
    inner, state, heads = 12, 5, 3
    z, xbc, dt = (m.in_proj.weight @ x.T).T.split([inner, inner + 2 * state, heads], -1)
    padded = torch.cat([torch.zeros(2, xbc.shape[1], dtype=x.dtype), xbc])
    kernel = m.conv.weight[:, 0]  # [channels, 3], the oldest token first
    conv = [(padded[t : t + 3].T * kernel).sum(-1) + m.conv.bias for t in range(len(x))]
    h, out = torch.zeros(heads, 4, state, dtype=x.dtype), []
    for t, token in enumerate(map(F.silu, conv)):
        v, b, c = token.split([inner, state, state])
        v, step = v.view(heads, 4), F.softplus(dt[t] + m.dt_bias)
        h = (-step * m.A_log.exp()).exp()[:, None, None] * h
        h = h + step[:, None, None] * v[:, :, None] * b
        y = (h @ c + m.D[:, None] * v).flatten() * F.silu(z[t])
        y = y / (y.square().mean() + 1e-5).sqrt() * m.norm.weight
        out.append(m.out_proj.weight @ y)
    return torch.stack(out)


def test_the_layer_by_hand():
    m = layer()
    with torch.no_grad():
        m.D.copy_(torch.randn(3))
        m.norm.weight.copy_(torch.randn(12))
    x = torch.randn(2, 12, 6, dtype=torch.float64)

    want = torch.stack([layer_by_hand(m, image) for image in x])

    torch.testing.assert_close(m(x), want, **CLOSE)


@pytest.mark.parametrize("chunk", [1, 5, 12, 256])
def test_the_chunk_is_only_a_matter_of_speed(chunk):
    one, other = layer(), layer(chunk=chunk)
    x = torch.randn(2, 12, 6, dtype=torch.float64)

    torch.testing.assert_close(one(x), other(x), **CLOSE)


@pytest.mark.parametrize("token", range(0, 12, 3))
def test_the_layer_is_causal(token):
    m = layer()
    x = torch.randn(1, 12, 6, dtype=torch.float64)
    changed = x.clone()
    changed[:, token] += 1

    moved = (m(changed) - m(x)).abs().amax(-1)[0]

    assert moved[:token].sum() == 0
    assert moved[token] > 0


def test_parameters_start_as_in_the_paper():
    torch.manual_seed(0)
    config = Config(expand=2, head_width=1, state=2, conv=4, chunk=4)
    m = Mamba2(config, Site(width=512, grid=(2, 2)))
    decay, step = m.A_log.exp(), F.softplus(m.dt_bias)

    assert 1 <= decay.min() < 1.5
    assert 15.5 < decay.max() <= 16
    assert 9e-4 < step.min() < 1.2e-3
    assert 0.09 < step.max() < 0.101
    assert step.log().mean().exp().item() == pytest.approx(0.01, rel=0.1)  # even in logarithm
    assert torch.equal(m.D, torch.ones(1024))
    assert m.in_proj.bias is None
    assert m.out_proj.bias is None
