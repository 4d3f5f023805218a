"""Blocks that look at neighbours or at one token: numbers worked out by hand."""

import pytest
import torch
from torch.nn import functional as F

from formwright.search.blocks import Site
from formwright.search.blocks.activations import PolyNorm, PolyReLU

from .samples import made, row, tokens

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


# --- neighbours -----------------------------------------------------------------------------------


def test_pool_by_hand():
    pool = made("pool", Site(1, (1, 3)), size=3)

    got = pool(torch.tensor([[[1.0], [2.0], [3.0]]], dtype=torch.float64))
    assert got.flatten().tolist() == pytest.approx([0.5, 0.0, -0.5])


def test_pool_of_a_grid_by_hand():
    pool = made("pool", Site(1, (3, 3)), size=3)

    got = pool(torch.arange(1.0, 10, dtype=torch.float64).view(1, 9, 1)).view(3, 3)
    assert got[0].tolist() == pytest.approx([2, 1.5, 1])
    assert got[1, 1] == 0


def test_pool_of_padding_by_hand():
    pool, x = made("pool", Site(1, (3,)), size=3), torch.tensor([[[1.0], [9], [3]]])

    got = pool(x.double(), torch.tensor([[True, False, True]])).flatten()
    assert got[[0, 2]].tolist() == [0, 0]


def test_causal_pool_by_hand():
    pool = made("pool", Site(1, (4,), causal=True), size=2)

    got = pool(torch.tensor([[[1.0], [2.0], [4.0], [8.0]]], dtype=torch.float64))
    assert got.flatten().tolist() == pytest.approx([0.0, -0.5, -1.0, -2.0])


def test_random_mixing_is_a_mean_that_is_never_trained():
    site = Site(8, (3, 3))
    m, x = made("random", site), tokens(site)

    assert not list(m.parameters())
    assert "weights" in m.state_dict()
    torch.testing.assert_close(m(torch.ones_like(x)), torch.ones_like(x), **CLOSE)


def test_gated_conv_by_hand():
    m = made("gated_conv", row(3, width=1), size=2)
    with torch.no_grad():
        m.in_proj.weight.copy_(torch.tensor([[2.0], [3.0], [1.0]]))  # b, c, x
        m.depthwise.weight.copy_(torch.tensor([[[10.0, 1.0]]]))  # the older token first
        m.out_proj.weight.fill_(1)

    got = m(torch.tensor([[[1.0], [2.0], [3.0]]], dtype=torch.float64))

    # b x = 2, 8, 18; conv = 2, 8 + 20, 18 + 80; c = 3, 6, 9
    assert got.flatten().tolist() == pytest.approx([6, 168, 882])


# --- channel mixers -------------------------------------------------------------------------------


def test_poly_relu_and_poly_norm_by_hand():
    x = torch.tensor([1.0, -2.0, 2.0, -1.0], dtype=torch.float64)
    norm = [0.383621, -0.432072, 1.346731, -0.154957]

    assert PolyReLU().double()(x).tolist() == pytest.approx([1, 0, 14 / 3, 0])
    assert PolyNorm().double()(x).tolist() == pytest.approx(norm, abs=2e-6)
    torch.testing.assert_close(
        PolyNorm().double()(x * 9), PolyNorm().double()(x), atol=1e-5, rtol=0
    )


def test_polynomials_hold_the_plain_ones():
    x = torch.randn(3, 8, dtype=torch.float64)
    relu, norm = PolyReLU().double(), PolyNorm().double()
    with torch.no_grad():
        for module in (relu, norm):
            module.weights.copy_(torch.tensor([1.0, 0, 0]))
            module.bias.fill_(0.5)

    torch.testing.assert_close(relu(x), x.relu() + 0.5, **CLOSE)
    torch.testing.assert_close(norm(x), F.rms_norm(x, [8], eps=1e-6) + 0.5, **CLOSE)


def test_sglu_is_of_degree_two():
    m = made("gated_mlp", Site(8, (3,)), hidden=12, activation="none")
    x = tokens(Site(8, (3,)))

    torch.testing.assert_close(m(2 * x), 4 * m(x), **CLOSE)


def test_a_full_rank_is_a_plain_mlp():
    site = Site(6, (3,))
    thin = made("low_rank_mlp", site, hidden=8, activation="gelu", rank=6)
    plain = made("mlp", site, hidden=8, activation="gelu")
    with torch.no_grad():
        for factors, whole in ((thin.widen, plain.widen), (thin.narrow, plain.narrow)):
            whole.weight.copy_(factors[1].weight @ factors[0].weight)
            whole.bias.copy_(factors[1].bias)
    x = tokens(site)

    torch.testing.assert_close(thin(x), plain(x), **CLOSE)
