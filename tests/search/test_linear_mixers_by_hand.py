"""Mixers without a softmax are what their papers say: numbers by hand, and limits."""

import math

import pytest
import torch
from torch.nn import functional as F

from formwright.search.blocks import Site
from formwright.search.blocks.linear_attention import Config as LinearConfig
from formwright.search.blocks.linear_attention import log_decays
from formwright.search.blocks.recurrence import recur_chunked
from formwright.search.blocks.retention import xpos

from .samples import made, row, tokens

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


# --- without softmax ------------------------------------------------------------------------------


def test_simple_attention_by_hand():
    """q = [[1, 0], [1, 2]], k = [[1, 1], [0, 2]], v = [[1, 2], [3, 4]]"""
    module = made("simple_attention", Site(2, (2,)), heads=1)
    q, k, v = ([[1, 0], [1, 2]], [[1, 1], [0, 2]], [[1, 2], [3, 4]])
    wanted = torch.cat([torch.tensor(p, dtype=torch.float64) for p in (q, k, v)], 1)  # [T, 3 D]
    with torch.no_grad():
        module.qkv.weight.copy_(wanted.T)  # of tokens that are the unit vectors
        module.near.weight.zero_()
        module.near.bias.zero_()
        module.out.weight.copy_(torch.eye(2))
        module.out.bias.zero_()

    got = module(torch.eye(2, dtype=torch.float64)[None])[0]

    want = torch.tensor([[1, 2], [15 / 7, 22 / 7]], dtype=torch.float64)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=0)


@pytest.mark.parametrize("count", [2, 9])
def test_both_orders_of_simple_attention_are_the_same(count):
    """Its definition, as a matrix over tokens; a head is 4 wide."""
    site = Site(8, (count,))
    m, x = made("simple_attention", site, heads=2), tokens(site)
    q, k, v = m.qkv(x).chunk(3, -1)
    q, k = F.relu(q), F.relu(k + m.positions)
    q, k, v = (p.unflatten(-1, (2, 4)).transpose(1, 2) for p in (q, k, v))
    scores = q @ k.transpose(-1, -2)
    mixed = scores @ v / (scores.sum(-1, keepdim=True) + 1e-6)
    near = m.near(v.flatten(0, 1)).unflatten(0, (2, 2))

    want = m.out((mixed + near).transpose(1, 2).flatten(2))
    torch.testing.assert_close(m(x), want, **CLOSE)


def test_simple_attention_of_a_query_that_is_zero_is_zero():
    m = made("simple_attention", Site(2, (2,)), heads=1)
    q, k, v = ([[-1, -1], [1, 2]], [[1, 1], [0, 2]], [[1, 2], [3, 4]])
    wanted = torch.cat([torch.tensor(p, dtype=torch.float64) for p in (q, k, v)], 1)
    with torch.no_grad():
        m.qkv.weight.copy_(wanted.T)
        m.near.weight.zero_()
        m.near.weight[..., 0, 2] = 1  # the middle: v itself is added
        m.near.bias.zero_()
        m.out.weight.copy_(torch.eye(2))
        m.out.bias.zero_()

    got = m(torch.eye(2, dtype=torch.float64)[None])[0]

    want = torch.tensor([[0, 0], [15 / 7, 22 / 7]], dtype=torch.float64) + wanted[:, 4:]
    torch.testing.assert_close(got, want, rtol=1e-5, atol=0)


@pytest.mark.parametrize("causal", [False, True])
def test_norm_attention_by_hand(causal):
    """Scores [[3, 2], [4, 3]] of 1 + elu, values [[1, 0], [0, 1]]."""
    m = made("norm_attention", Site(2, (2,), causal=causal), heads=1, chunk=2)
    q, k, v = ([[0, 0], [1, 0]], [[0, 1], [0, 0]], [[1, 0], [0, 1]])
    with torch.no_grad():
        m.qkv.weight.copy_(torch.cat([torch.tensor(p) for p in (q, k, v)], 1).T)
        m.qkv.bias.zero_()
        m.out.weight.copy_(torch.eye(2))
        m.out.bias.zero_()

    got = m(torch.eye(2, dtype=torch.float64)[None])[0]

    first = [2**0.5, 0.0] if causal else [1.176697, 0.784465]
    want = torch.tensor([first, [1.131371, 0.848528]], dtype=torch.float64)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "std"), [("norm_attention", 0.0884), ("manhattan", 0.0221)])
def test_maps_begin_as_small_as_in_the_paper(name, std):
    """Each of q, k and v by itself: the fused matrix is three times as high."""
    settings = {
        "norm_attention": {"heads": 4, "chunk": 4},
        "manhattan": {"heads": 4, "reach": 4, "decomposed": False, "inside": True},
    }[name]
    m = made(name, Site(64, (2, 2)), **settings)

    for weight in m.qkv.weight.chunk(3):
        assert weight.std().item() == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize("causal", [False, True])
def test_norm_attention_forgets_the_size_of_values(causal):
    site = Site(8, (9,), causal=causal)
    m, x = made("norm_attention", site, heads=2, chunk=4), tokens(site)
    want = m(x)
    with torch.no_grad():
        m.qkv.weight[16:] *= 1e4
        m.qkv.bias[16:] *= 1e4

    torch.testing.assert_close(m(x), want, rtol=1e-3, atol=1e-3)


def test_decays_of_linear_attention():
    site = Site(16, (4,), causal=True, layer=0, layers=3)
    config = LinearConfig(heads=8, chunk=4, rotate=False)
    first = log_decays(config, site)
    last = log_decays(config, Site(16, (4,), causal=True, layer=2, layers=3))

    assert first == pytest.approx([-(2.0**-n) * (1 + 1e-5) for n in range(1, 9)])
    assert last == pytest.approx([-(2.0**-n) * 1e-5 for n in range(1, 9)])


def test_learned_rotation_begins_as_in_the_paper():
    m = made("linear_attention", row(3, width=6), heads=2, chunk=3, rotate=True)

    want = [1, 0.0464159, 0.00215443, 1e-4, 4.64159e-6, 2.15443e-7]
    assert m.angles.tolist() == pytest.approx(want, rel=1e-5)


def test_linear_attention_as_a_matrix():
    """out(u * srms(((q k^T) * M) v)), M[t, s] = lambda^(t - s)."""
    site = row(7, layer=1, layers=3)
    m, x = made("linear_attention", site, heads=2, chunk=3, rotate=False), tokens(site)
    q, k, v, u = m.qkvu(x).chunk(4, -1)
    q, k, v = (p.unflatten(-1, (2, 4)).transpose(1, 2) for p in (F.silu(q), F.silu(k), v))
    apart = torch.arange(7.0)[:, None] - torch.arange(7.0)
    mask = (torch.tensor(m.log_decays)[:, None, None] * apart).exp().tril().double()
    y = ((q @ k.transpose(-1, -2) * mask) @ v).transpose(1, 2).flatten(2)
    y = y / (y.norm(dim=-1, keepdim=True) / math.sqrt(8) + 1e-6)

    torch.testing.assert_close(m(x), m.out(u * y), rtol=1e-6, atol=1e-6)


def test_learned_rotation_depends_on_the_distance_only():
    """q k = sum of q k cos((t - s) theta): the same wherever a row of tokens stands."""
    site = row(6)
    m, x = made("linear_attention", site, heads=2, chunk=3, rotate=True), tokens(site)
    q, k, *_ = m._parts(x, torch.arange(6))
    far_q, far_k, *_ = m._parts(x, torch.arange(50, 56))

    score, far = (torch.einsum("bthk,bshk->bhts", *qk) for qk in ((q, k), (far_q, far_k)))
    torch.testing.assert_close(score, far, **CLOSE)


def test_xpos_by_hand():
    fade = xpos(torch.tensor([0, 512]), 4)

    want = [[1] * 4, [0.285714, 0.285714, 0.642857, 0.642857]]
    torch.testing.assert_close(fade, torch.tensor(want, dtype=torch.float64), rtol=1e-5, atol=0)


def test_xpos_depends_on_the_distance_only():
    m = made("retention", row(6), heads=2, expand=1, chunk=3)
    x = tokens(row(6))
    near, far = (m._parts(x, torch.arange(at, at + 6))[:2] for at in (0, 50))

    score, moved = (torch.einsum("bthk,bshk->bhts", *qk) for qk in (near, far))
    torch.testing.assert_close(score, moved, **CLOSE)
    q, k = near
    assert (torch.einsum("bthk,bshk->bhts", q, k) - score.transpose(-1, -2)).abs().max() > 1e-3


def test_retention_as_a_matrix():
    site = row(7)
    m, x = made("retention", site, heads=2, expand=2, chunk=3), tokens(site)
    q, k, v, gate = m._parts(x, torch.arange(7))
    q, k, v = (p.transpose(1, 2) for p in (q, k, v))
    apart = torch.arange(7.0)[:, None] - torch.arange(7.0)
    gamma = torch.tensor([1 - 1 / 32, 1 - 1 / 512], dtype=torch.float64)
    mask = (gamma[:, None, None] ** apart).tril()
    y = ((q @ k.transpose(-1, -2) * mask) @ v).transpose(1, 2)
    y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()

    want = m.out(F.silu(gate) * (y.flatten(2) * m.weight + m.bias))
    torch.testing.assert_close(m(x), want, rtol=1e-5, atol=1e-5)


def phi_by_hand():
    """Width 1: x, b, c, z are the token, alpha is 0, and the convolution does nothing."""
    m = made("phi_mamba", row(2, width=1), heads=1, state=1, conv=1, chunk=2)
    with torch.no_grad():
        m.in_proj.weight.copy_(torch.tensor([[1.0], [1], [1], [1], [0]]))
        m.conv.weight.fill_(1)
        m.conv.bias.zero_()
        m.out_proj.weight.fill_(1)
    return m


def test_phi_mamba_by_hand():
    m = phi_by_hand()

    def of(*values):
        return m(torch.tensor(values, dtype=torch.float64).view(1, -1, 1)).flatten().tolist()

    assert of(1, 2) == pytest.approx([1.462117, 19.377536], abs=1e-6)
    assert of(-1) == pytest.approx([0.537883], abs=1e-6)
    assert of(0, 0) == [0, 0]


def test_phi_mamba_halves_what_it_keeps_at_zero():
    site = row(5, width=4)
    m, x = made("phi_mamba", site, heads=1, state=3, conv=2, chunk=2), tokens(site)
    with torch.no_grad():
        m.in_proj.weight[-1] = 0  # alpha = 0
    xbc, z, _ = m._split(x)
    v, b, c = m._heads(m.conv(xbc))
    half = torch.full((2, 5, 1), math.log(0.5), dtype=torch.float64)
    y, _ = recur_chunked(v, half, b, c, 5)

    want = m.out_proj((y + m.D[:, None] * v).flatten(2) * F.silu(z + m.z_bias))
    torch.testing.assert_close(m(x), want, **CLOSE)
