"""The row of a block: what it says of costs is what is counted, and wrong settings are refused."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from formwright.search.blocks import BLOCKS, Site
from formwright.search.errors import SpecError

from .samples import SETTINGS, SITE, every_sample, make

# --- what a block costs ---------------------------------------------------------------------------


class Written(TorchDispatchMode):
    """Counts the numbers that matrix products and convolutions write."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if function.overloadpacket in flop_registry:
            self.count += made.numel()
        return made


@every_sample
@torch.no_grad()
def test_costs_are_those_that_are_counted(sample):
    block, config, site = sample
    module, x = make(sample)
    cost = block.cost_at(config, site)
    with FlopCounterMode(display=False) as flops:
        module(x[:1])
    with Written() as written:
        module(x[:1])

    assert cost.params == sum(p.numel() for p in module.parameters())
    assert cost.flops == flops.get_total_flops()
    assert cost.activations == written.count


def test_symbols_are_different():
    symbols = [BLOCKS.load(name).symbol for name in BLOCKS.names()]

    assert len(set(symbols)) == len(symbols)
    assert all(len(symbol) == 1 for symbol in symbols)


# --- settings that are wrong ----------------------------------------------------------------------


def refused(name, settings, site=SITE):
    """What is said of these settings: `(field, message)`."""
    with pytest.raises(SpecError) as caught:
        BLOCKS.load(name).make(settings, site, "layers[1].mixer")
    return caught.value.field, str(caught.value)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_all_given_and_no_others(name):
    first, *rest = SETTINGS[name]

    field, message = refused(name, {key: SETTINGS[name][key] for key in rest})
    assert field == "layers[1].mixer"
    assert first in message
    field, message = refused(name, {**SETTINGS[name], "colour": 1})
    assert field == "layers[1].mixer"
    assert "colour" in message


WRONG = {int: [0, -1, 2.0, True, "2"], str: [1, True], bool: [0, 1, "yes"]}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_of_their_type_and_positive(name):
    for setting, right in SETTINGS[name].items():
        for value in WRONG[type(right)]:
            field, message = refused(name, {**SETTINGS[name], setting: value})
            assert field == f"layers[1].mixer.{setting}"
            assert repr(value) in message


ATTENTION = SETTINGS["attention"]
MLP = SETTINGS["mlp"]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("attention", {**ATTENTION, "heads": 3}, "4 heads of keys do not divide 3 heads"),
        (
            "attention",
            {**ATTENTION, "positions": "learned"},
            "positions are one of none, rotary, alibi, not 'learned'",
        ),
        (
            "attention",
            {**ATTENTION, "head_width": 5, "positions": "rotary"},
            "rotation wants heads of even width, not 5",
        ),
        ("diag_attention", {"heads": 4, "chunk": 8}, "4 heads do not divide a width of 30"),
        (
            "mlp",
            {**MLP, "activation": "tanh"},
            "an activation is one of gelu, relu, silu, none, poly_relu, poly_norm, not 'tanh'",
        ),
        (
            "low_rank_mlp",
            {**SETTINGS["low_rank_mlp"], "rank": 31},
            "a rank of 31 is more than matrices of 30 x 32 can have",
        ),
        ("pool", {"size": 2}, "a pool of 2 has no middle; wanted an odd size"),
        ("conv", {"size": 4}, "a convolution of 4 has no middle; wanted an odd size"),
        ("mamba2", SETTINGS["mamba2"], "heads of 16 do not divide the inner width 60"),
    ],
)
def test_settings_fit_the_site(name, settings, message):
    field, said = refused(name, settings, Site(width=30, grid=(4, 4)))

    assert field == "layers[1].mixer"
    assert said == f"layers[1].mixer: {message}"


def test_a_block_that_sees_ahead_is_refused_where_it_must_not():
    site = replace(SITE, causal=True)

    field, said = refused("simple_attention", {"heads": 4}, site)
    assert field == "layers[1].mixer"
    assert "simple_attention sees later tokens; the site is causal" in said


def test_a_block_of_grids_is_refused_in_a_row():
    field, said = refused("manhattan", SETTINGS["manhattan"], replace(SITE, grid=(16,)))

    assert field == "layers[1].mixer"
    assert "manhattan wants a grid of 2 dimensions, not 1" in said
