"""The blocks a layer is made of. To add one: a file here with its Config, its module and `BLOCK =
Block(...)`, and a row below; from outside, an entry point of the group `formwright.blocks`."""

from __future__ import annotations

from ..registry import Registry
from .block import Block, Site

BLOCKS = Registry(
    "block",
    "formwright.blocks",
    Block,
    {
        "attention": ".blocks.attention:BLOCK",
        "conv": ".blocks.conv:BLOCK",
        "mamba2": ".blocks.mamba2:BLOCK",
        "mlp": ".blocks.mlp:BLOCK",
        "pool": ".blocks.pool:BLOCK",
    },
)

__all__ = ["BLOCKS", "Block", "Site"]
