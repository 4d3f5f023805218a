"""The blocks a layer is made of. To add one: a file here with its Config, its module and `BLOCK =
Block(...)`, and a row below; from outside, an entry point of the group `formwright.blocks`."""

from __future__ import annotations

from ..registry import Registry
from .block import Block, Causal, Kind, Site
from .cost import Cost

BLOCKS = Registry(
    "block",
    "formwright.blocks",
    Block,
    {
        "aaren": ".blocks.aaren:BLOCK",
        "attention": ".blocks.attention:BLOCK",
        "conv": ".blocks.conv:BLOCK",
        "diag_attention": ".blocks.diag_attention:BLOCK",
        "gated_conv": ".blocks.gated_conv:BLOCK",
        "gated_mlp": ".blocks.gated_mlp:BLOCK",
        "identity": ".blocks.identity:BLOCK",
        "linear_attention": ".blocks.linear_attention:BLOCK",
        "low_rank_mlp": ".blocks.low_rank_mlp:BLOCK",
        "mamba2": ".blocks.mamba2:BLOCK",
        "manhattan": ".blocks.manhattan:BLOCK",
        "mlp": ".blocks.mlp:BLOCK",
        "norm_attention": ".blocks.norm_attention:BLOCK",
        "phi_mamba": ".blocks.phi_mamba:BLOCK",
        "pool": ".blocks.pool:BLOCK",
        "random": ".blocks.random_mixing:BLOCK",
        "retention": ".blocks.retention:BLOCK",
        "simple_attention": ".blocks.simple_attention:BLOCK",
    },
)

__all__ = ["BLOCKS", "Block", "Causal", "Cost", "Kind", "Site"]
