"""Pooling as a token mixer: the mean of the neighbours, minus the token. It has no parameters.

"MetaFormer is Actually What You Need for Vision" (Yu et al., 2022). The token itself is taken
off because the layer around adds it again. At the border only tokens inside the grid count.

Shapes: B batch, T tokens, D width, G x W the grid (G * W = T). Next: `conv.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .block import Block, Site


@dataclass(frozen=True)
class Config:
    size: int
    """Neighbours down and across, the middle included; odd."""


class Pool(nn.Module):
    """[B, T, D] -> [B, T, D]"""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        if config.size % 2 == 0:
            raise ValueError(f"a pool of {config.size} has no middle; wanted an odd size")
        self.grid = site.grid
        self.mean = nn.AvgPool2d(config.size, 1, config.size // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        image = x.transpose(1, 2).unflatten(2, self.grid)  # [B, D, G, W]
        mixed: Tensor = self.mean(image) - image
        return mixed.flatten(2).transpose(1, 2)


BLOCK = Block(
    name="pool",
    config=Config,
    module=Pool,
    samples=(
        (Config(size=3), Site(width=16, grid=(4, 4))),
        (Config(size=5), Site(width=6, grid=(2, 3))),
    ),
)
