"""Every block of the table at every site it brings along, in double precision."""

from dataclasses import asdict

import pytest
import torch

from formwright.search.blocks import BLOCKS, Site

SAMPLES = [(name, at) for name in BLOCKS.names() for at in range(len(BLOCKS.load(name).samples))]
every_sample = pytest.mark.parametrize(
    "sample",
    [(block := BLOCKS.load(name), *block.samples[at]) for name, at in SAMPLES],
    ids=[f"{name}-{at}" for name, at in SAMPLES],
)
SITE = Site(width=16, grid=(4, 4))
# of the first sample of each block; blocks without settings have nothing to refuse
SETTINGS = {
    name: settings
    for name in BLOCKS.names()
    if (settings := asdict(BLOCKS.load(name).samples[0][0]))
}


def make(sample, dtype=torch.float64):
    """The module of a sample, and an input of three images for it."""
    block, config, site = sample
    torch.manual_seed(1)
    module = block.module(config, site).to(dtype)
    return module, torch.randn(3, site.tokens, site.width, dtype=dtype)


def made(name, site, **settings):
    """A block in double precision."""
    torch.manual_seed(0)
    return BLOCKS.load(name).make(settings, site, "mixer").double()


def row(length, width=8, **settings):
    """A causal site of one row of tokens."""
    return Site(width, (length,), causal=True, **settings)


def tokens(site, batch=2, seed=1):
    """An input for a site, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, site.tokens, site.width, generator=generator, dtype=torch.float64)
