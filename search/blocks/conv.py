"""Separable convolution as a token mixer: widen, look at the neighbours channel by channel, narrow.

SepConv of "MetaFormer Baselines for Vision" (Yu et al., 2024), which takes it from MobileNetV2:
pointwise to twice the width, activation, depthwise `size` x `size`, pointwise back, no biases.
We use GELU where the paper has StarReLU.

Shapes: B batch, T tokens, D width, E = 2 D, G x W the grid (G * W = T). Next: `attention.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from .block import Block, Site

EXPAND = 2


@dataclass(frozen=True)
class Config:
    size: int
    """Neighbours down and across, the middle included; odd."""


class SepConv(nn.Module):
    """[B, T, D] -> [B, T, D]"""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        if config.size % 2 == 0:
            raise ValueError(f"a convolution of {config.size} has no middle; wanted an odd size")
        wide = EXPAND * site.width
        self.grid = site.grid
        self.widen = nn.Linear(site.width, wide, bias=False)
        self.depthwise = nn.Conv2d(
            wide, wide, config.size, padding=config.size // 2, groups=wide, bias=False
        )
        self.narrow = nn.Linear(wide, site.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.widen(x))  # [B, T, E]
        image = x.transpose(1, 2).unflatten(2, self.grid)  # [B, E, G, W]
        mixed: Tensor = self.narrow(self.depthwise(image).flatten(2).transpose(1, 2))
        return mixed


BLOCK = Block(
    name="conv",
    config=Config,
    module=SepConv,
    samples=(
        (Config(size=3), Site(width=16, grid=(4, 4))),
        (Config(size=5), Site(width=6, grid=(2, 3))),
    ),
)
