"""The norms of a layer, as blocks. To add one: a file here with its Config, its module and `BLOCK =
Block(...)`, and a row below; from outside, an entry point of the group `formwright.norms`."""

from __future__ import annotations

from ..blocks import Block
from ..registry import Registry

NORMS = Registry(
    "norm",
    "formwright.norms",
    Block,
    {
        "crms": ".norms.plain:CRMS",
        "layer": ".norms.plain:LAYER",
        "none": ".norms.plain:NONE",
        "prepbn": ".norms.prepbn:BLOCK",
        "rms": ".norms.plain:RMS",
        "scaled_layer": ".norms.scaled:LAYER",
        "scaled_rms": ".norms.scaled:RMS",
    },
)

__all__ = ["NORMS"]
