"""No mixing at all: each token is what it was. What a search may always fall back to.

"MetaFormer Baselines for Vision" (Yu et al., 2024) trains whole models of it: the floor of what a
mixer is worth.

Shapes: B batch, T tokens, D width. Next: `random_mixing.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .block import Block, Causal, Kind, PerToken, Site
from .cost import Cost


@dataclass(frozen=True)
class Config:
    pass


class Identity(PerToken):
    """[B, T, D] -> [B, T, D]"""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        return x


def cost(config: Config, site: Site) -> Cost:
    return Cost()


BLOCK = Block(
    name="identity",
    symbol="i",
    kind=Kind.MIXER,
    causal=Causal.EITHER,
    source="Yu et al., 2024",
    config=Config,
    module=Identity,
    cost=cost,
    samples=((Config(), Site(width=16, grid=(4, 4))), (Config(), Site(6, (9,), causal=True))),
)
