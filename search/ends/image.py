"""Images as tokens: patches that do not overlap, each a linear map of its pixels.

"An Image is Worth 16x16 Words" (ViT, Dosovitskiy et al., 2021).

Shapes: B batch, C channels, Y x X the image, T tokens, D width. Next: `series.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..blocks.cost import Cost, linear
from .end import Positions, Stem


@dataclass(frozen=True)
class Config:
    channels: int
    height: int
    width: int
    patch: int
    """Pixels of its side."""
    positions: bool
    """Whether tokens are told where they stand."""


class Patches(nn.Module):
    """[B, C, Y, X] -> [B, T, D], row by row"""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        down, across = grid(config)
        self.patches = nn.Conv2d(config.channels, width, config.patch, stride=config.patch)
        self.positions = Positions(down * across, width) if config.positions else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        x: Tensor = self.positions(self.patches(images).flatten(2).transpose(1, 2))
        return x


def grid(config: Config) -> tuple[int, ...]:
    if config.height % config.patch or config.width % config.patch:
        sides = f"{config.height} x {config.width}"
        raise ValueError(f"patches of {config.patch} do not divide an image of {sides}")
    return config.height // config.patch, config.width // config.patch


def cost(config: Config, width: int) -> Cost:
    down, across = grid(config)
    table = Cost(params=down * across * width if config.positions else 0)
    return linear(config.channels * config.patch**2, width, down * across) + table


def example(config: Config, batch: int) -> Tensor:
    return torch.randn(batch, config.channels, config.height, config.width)


STEM = Stem("image", Config, Patches, grid, lambda config: False, cost, example)
