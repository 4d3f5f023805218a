"""Mixers with a softmax are what their papers say: numbers by hand, and limits."""

import math

import pytest
import torch
from torch.nn import functional as F

from formwright.search.blocks import Site
from formwright.search.blocks.aaren import combine, prefixes
from formwright.search.blocks.positions import angles, distances, rotate, slopes

from .samples import made, row, tokens

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


# --- positions ------------------------------------------------------------------------------------


def test_distances_on_a_grid():
    assert distances((2, 2)).tolist() == [[0, 1, 1, 2], [1, 0, 2, 1], [1, 2, 0, 1], [2, 1, 1, 0]]
    assert distances((2, 2), far=True).amax() == 1


def test_slopes_of_alibi():
    assert slopes(8) == [2.0**-n for n in range(1, 9)]
    assert slopes(6) == [2.0**-n for n in (2, 4, 6, 8, 1, 3)]


def test_a_rotation_depends_on_the_distance_only():
    q, k = torch.randn(2, 1, 6, dtype=torch.float64)

    def score(t, s):
        at = torch.tensor([t, s])
        one, other = rotate(q, angles(at, 6)[:1]), rotate(k, angles(at, 6)[1:])
        return (one * other).sum()

    torch.testing.assert_close(score(7, 4), score(103, 100), **CLOSE)
    assert (score(7, 4) - score(7, 5)).abs() > 1e-3


# --- attention ------------------------------------------------------------------------------------


def attention(site, **changed):
    heads = changed.get("heads", 2)
    plain = {"heads": heads, "kv_heads": heads, "positions": "none", "span": site.tokens}
    settings = {**plain, "head_width": site.width // heads, **changed}
    return made("attention", site, **settings)


def heads_of(module, x):
    """q, k, v [B, 2, T, 4] of two heads."""
    parts = (module.q(x), module.k(x), module.v(x))
    return (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in parts)


def test_shared_keys_are_those_of_full_attention_repeated():
    site = row(7)
    shared, full = attention(site, heads=4, kv_heads=2), attention(site, heads=4)
    with torch.no_grad():
        for name, weight in shared.state_dict().items():
            if name[0] in "kv":
                weight = weight.unflatten(0, (2, 2)).repeat_interleave(2, 0).flatten(0, 1)
            full.get_parameter(name).copy_(weight)
    x = tokens(site)

    torch.testing.assert_close(shared(x), full(x), **CLOSE)


def test_a_span_of_one_sees_itself_only():
    site = Site(8, (3, 3))
    module, x = attention(site, span=1), tokens(site)
    v = module.v(x)

    torch.testing.assert_close(module(x), module.out(v), **CLOSE)


@pytest.mark.parametrize("causal", [False, True])
def test_a_window_is_what_is_near(causal):
    site = Site(8, (9,), causal=causal)
    module, x = attention(site, span=3), tokens(site)
    q, k, v = (
        p.unflatten(-1, (2, 4)).transpose(1, 2) for p in (module.q(x), module.k(x), module.v(x))
    )
    apart = torch.arange(9)[:, None] - torch.arange(9)
    seen = (apart < 3) & (apart >= 0) if causal else apart.abs() < 3
    want = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)

    torch.testing.assert_close(module(x), module.out(want.transpose(1, 2).flatten(2)), **CLOSE)


def test_alibi_takes_the_distance_off():
    site = row(5)
    module, x = attention(site, positions="alibi"), tokens(site)
    q, k, v = (
        p.unflatten(-1, (2, 4)).transpose(1, 2) for p in (module.q(x), module.k(x), module.v(x))
    )
    apart = torch.arange(5.0)[:, None] - torch.arange(5.0)
    bias = -torch.tensor([2.0**-4, 2.0**-8])[:, None, None] * apart
    bias = bias.masked_fill(apart < 0, -torch.inf).double()
    want = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)

    torch.testing.assert_close(module(x), module.out(want.transpose(1, 2).flatten(2)), **CLOSE)


def test_one_chunk_of_diag_attention_is_attention():
    site = row(7)
    diag, full = made("diag_attention", site, heads=2, chunk=7), attention(site)
    full.load_state_dict(diag.state_dict())
    x = tokens(site)

    torch.testing.assert_close(diag(x), full(x), **CLOSE)


def test_chunks_of_diag_attention_do_not_see_each_other():
    site = row(8)
    module, x = made("diag_attention", site, heads=2, chunk=4), tokens(site)

    torch.testing.assert_close(module(x)[:, 4:], module(x[:, 4:]), **CLOSE)


@pytest.mark.parametrize("site", [row(7), Site(8, (2, 3), causal=True)], ids=["row", "grid"])
def test_a_long_span_is_causal_attention(site):
    module, x = attention(site, span=6 + site.tokens), tokens(site)
    q, k, v = (
        p.unflatten(-1, (2, 4)).transpose(1, 2) for p in (module.q(x), module.k(x), module.v(x))
    )
    want = F.scaled_dot_product_attention(q, k, v, is_causal=True)

    torch.testing.assert_close(module(x), module.out(want.transpose(1, 2).flatten(2)), **CLOSE)


# --- Manhattan ------------------------------------------------------------------------------------


def manhattan(site, **changed):
    settings = {"heads": 2, "reach": 4, "decomposed": False, "inside": True, **changed}
    return made("manhattan", site, **settings)


def test_manhattan_decay_is_a_product_of_both_axes():
    site = Site(8, (2, 3))
    whole, parts = manhattan(site), manhattan(site, decomposed=True)

    for head in range(2):
        x = torch.zeros(1, dtype=torch.float64)
        down, across = parts.decay(x, 0)[head].exp(), parts.decay(x, 1)[head].exp()
        torch.testing.assert_close(whole.decay(x, 0)[head].exp(), torch.kron(down, across))


def test_decomposed_is_whole_where_all_scores_are_equal():
    site = Site(8, (2, 3))
    whole, parts = manhattan(site), manhattan(site, decomposed=True)
    with torch.no_grad():
        for m in (whole, parts):
            m.qkv.weight[:16] = 0
            m.qkv.bias[:16] = 0
    x = tokens(site)

    torch.testing.assert_close(whole(x), parts(x), **CLOSE)


@pytest.mark.parametrize("decomposed", [False, True])
def test_manhattan_by_hand(decomposed):
    """All scores equal, all values 1, one head that keeps 3/4: with the decay inside the mean of
    ones is 1, outside it is the mean of what is kept."""
    for grid, outside in (((1, 2), 0.875), ((2, 2), 0.765625)):
        for inside in (True, False):
            m = manhattan(Site(2, grid), heads=1, decomposed=decomposed, inside=inside)
            with torch.no_grad():
                m.qkv.weight.zero_()
                m.qkv.bias.copy_(torch.tensor([0.0, 0, 0, 0, 1, 1]))
                m.near.weight.zero_()
                m.near.bias.zero_()
                m.out.weight.copy_(torch.eye(2))
                m.out.bias.zero_()

            got = m(tokens(Site(2, grid)))

            want = torch.full_like(got, 1 if inside else outside)
            torch.testing.assert_close(got, want, **CLOSE)


def test_decomposed_is_another_thing_where_scores_differ():
    site = Site(8, (2, 3))
    x = 9 * tokens(site)

    assert (manhattan(site)(x) - manhattan(site, decomposed=True)(x)).abs().max() > 1e-3


def test_decay_inside_and_outside_differ():
    site = Site(8, (2, 3))
    x = tokens(site)

    assert (manhattan(site)(x) - manhattan(site, inside=False)(x)).abs().max() > 1e-3


# --- Aaren ----------------------------------------------------------------------------------------


def test_aaren_by_hand():
    scores = torch.tensor([0, math.log(2), math.log(4)], dtype=torch.float64).view(1, 3, 1)
    v = torch.tensor([1, 3, 5], dtype=torch.float64).view(1, 3, 1, 1)

    for moved in (0, 700, -700):
        _, u, w = prefixes(scores + moved, v)
        assert (w[..., 0] / u).flatten().tolist() == pytest.approx([1, 7 / 3, 27 / 7])


def test_aaren_is_attention_with_one_query():
    site = row(9)
    m, x = made("aaren", site, heads=2), tokens(site)
    k, v = (p.unflatten(-1, (2, 4)).transpose(1, 2) for p in m.kv(x).chunk(2, -1))
    q = m.q(m.token).view(1, 2, 1, 4).expand(2, 2, 9, 4)

    want = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(m(x), m.out(want.transpose(1, 2).flatten(2)), **CLOSE)


def test_aaren_has_one_vector_more_than_attention():
    m = made("aaren", row(2, width=512), heads=8)

    assert sum(p.numel() for p in m.parameters()) == 4 * 512**2 + 512


def test_stretches_may_be_combined_in_any_grouping():
    def draw():
        m, u = torch.randn(2, 2, dtype=torch.float64)
        return m, u.exp(), torch.randn(2, 3, dtype=torch.float64)

    a, b, c = draw(), draw(), draw()

    for one, other in zip(combine(combine(a, b), c), combine(a, combine(b, c)), strict=True):
        torch.testing.assert_close(one, other, **CLOSE)
