"""Norms as blocks: what they are by hand, what they cost, PRepBN's schedule and its fold."""

import pytest
import torch
from torch import nn

from formwright.search import NORMS
from formwright.search.blocks import Site
from formwright.search.norms.plain import Crms
from formwright.search.norms.prepbn import folded

SITE = Site(8, (6,))


def norm(name, site=SITE, **settings):
    torch.manual_seed(0)
    return NORMS.load(name).make(settings, site, "norm").double()


def tokens(batch=3):
    return torch.randn(batch, 6, 8, dtype=torch.float64) * 3 + 1


def prepbn(steps, trained=0):
    made = norm("prepbn", steps=steps).train()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn_like(p) / 4)
    for _ in range(trained):
        made(tokens())
    return made


@pytest.mark.parametrize("name", NORMS.names())
def test_costs_are_those_that_are_counted(name):
    block = NORMS.load(name)
    for config, site in block.samples:
        module = block.module(config, site)

        assert block.cost_at(config, site).params == sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", NORMS.names())
def test_a_step_is_one_token(name):
    block = NORMS.load(name)
    config, site = block.samples[0]
    module = block.module(config, site).double().eval()
    x = torch.randn(2, site.tokens, site.width, dtype=torch.float64)

    y, _ = module.step(x[:, 3], ())

    torch.testing.assert_close(y, module(x)[:, 3])


def test_crms_by_hand():
    """(1, 2, -4, 1) adds up to zero: its mean square is 22 / 4."""
    crms = Crms(3).double()

    got = crms(torch.tensor([1.0, 2.0, -4.0], dtype=torch.float64))
    assert got.tolist() == pytest.approx([0.426401, 0.852803, -1.705606], abs=1e-5)


def test_crms_is_the_rms_of_what_adds_up_to_zero():
    y = torch.randn(5, 7, dtype=torch.float64)
    whole = torch.cat([y, -y.sum(-1, keepdim=True)], -1)

    want = nn.functional.rms_norm(whole, [8], eps=1e-5)[:, :7]
    torch.testing.assert_close(Crms(7).double()(y), want)


@pytest.mark.parametrize("name", ["layer", "rms"])
def test_scaling_divides_by_the_root_of_the_depth(name):
    x = tokens()
    for layer, factor in ((0, 1), (1, 2**-0.5), (3, 0.5), (8, 1 / 3)):
        site = Site(8, (6,), layer=layer, layers=9)

        torch.testing.assert_close(norm(f"scaled_{name}", site)(x), norm(name)(x) * factor)


def test_prepbn_begins_as_layer_norm():
    made, x = prepbn(steps=4), tokens()

    torch.testing.assert_close(made(x), made.layer(x))


def test_prepbn_ends_as_batch_norm_and_more():
    made, x = prepbn(steps=2, trained=2), tokens()
    batch = nn.BatchNorm1d(8).double()
    batch.load_state_dict({"weight": made.weight, "bias": made.bias}, strict=False)

    want = batch(x.flatten(0, 1)).view_as(x) + made.alpha * x
    torch.testing.assert_close(made(x), want)


def test_prepbn_goes_from_one_to_the_other():
    made, x = prepbn(steps=4, trained=1), tokens()
    ended = prepbn(steps=1, trained=1)
    ended.load_state_dict(made.state_dict())

    want = 0.75 * made.layer(x) + 0.25 * ended(x)
    torch.testing.assert_close(made(x), want)


def test_running_statistics_are_those_of_batch_norm():
    made, batch = prepbn(steps=3), nn.BatchNorm1d(8).double()
    for _ in range(5):
        x = tokens()
        made(x)
        batch(x.flatten(0, 1))

    torch.testing.assert_close(made.mean, batch.running_mean)
    torch.testing.assert_close(made.variance, batch.running_var)
    assert made.calls == 5


def test_padding_is_no_part_of_the_statistics():
    made, other, x = prepbn(steps=1, trained=1), prepbn(steps=1, trained=1), tokens()
    other.load_state_dict(made.state_dict())
    real = torch.ones(3, 6, dtype=torch.bool)
    real[:, 4:] = False
    changed = torch.where(real[..., None], x, x * 100)

    torch.testing.assert_close(made(changed, real)[:, :4], other(x[:, :4]))
    torch.testing.assert_close(made.variance, other.variance)


def test_the_fold_by_hand():
    """weight 2, bias 1/2, mean 1, variance 4, alpha 1/4: 5/4 x - 1/2."""
    made = norm("prepbn", Site(1, (1,)), steps=1).eval()
    with torch.no_grad():
        for name, value in {
            "weight": 2,
            "bias": 0.5,
            "mean": 1,
            "variance": 4,
            "alpha": 0.25,
        }.items():
            getattr(made, name).fill_(value)

    assert [v.item() for v in made.fold()] == pytest.approx([1.25, -0.5], abs=1e-5)
    assert made(torch.full((1, 1, 1), 3.0, dtype=torch.float64)).item() == pytest.approx(
        3.25, abs=1e-5
    )


def test_a_linear_takes_the_norm_in():
    made, linear, x = prepbn(steps=1, trained=3).eval(), nn.Linear(8, 5).double(), tokens()

    torch.testing.assert_close(folded(made, linear)(x), linear(made(x)))
    plain = nn.Linear(8, 5, bias=False).double()
    torch.testing.assert_close(folded(made, plain)(x), plain(made(x)))
