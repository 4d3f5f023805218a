"""Mamba-2: the layer is the one of the paper."""

import pytest
import torch
from torch.nn import functional as F

from formwright.search.blocks import Site
from formwright.search.blocks.mamba2 import Config, Mamba2

CLOSE = {"rtol": 1e-10, "atol": 1e-10}

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
