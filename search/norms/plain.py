"""Norms of one token by itself: LayerNorm, RMSNorm, CRMSNorm, none.

LayerNorm (Ba et al., 2016), RMSNorm (Zhang and Sennrich, 2019), and CRMSNorm of "Pre-RMSNorm and
Pre-CRMSNorm Transformers" (Jiang et al., 2023): the RMSNorm of a token whose numbers add up to
zero, the last of which is left out:

    crms(y) = y / sqrt((sum of y^2 + (sum of y)^2) / (D + 1) + eps)

Shapes: B batch, T tokens, D width; [..., D] in and out. Next: `scaled.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..blocks.block import Block, Causal, Kind, PerToken, Site
from ..blocks.cost import Cost

EPS = 1e-5


@dataclass(frozen=True)
class Config:
    pass


class Crms(nn.Module):
    """With a weight for each number, as RMSNorm has."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, y: Tensor) -> Tensor:
        squares, last = (y * y).sum(-1, keepdim=True), y.sum(-1, keepdim=True)
        root = torch.rsqrt((squares + last * last) / (y.shape[-1] + 1) + EPS)
        return y * root * self.weight


class Norm(PerToken):
    """[B, T, D] -> [B, T, D], `factor` times what `norm` makes of it."""

    def __init__(self, norm: nn.Module, factor: float = 1.0) -> None:
        super().__init__()
        self.norm, self.factor = norm, factor

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        y: Tensor = self.norm(x)
        return y if self.factor == 1 else y * self.factor


MADE: dict[str, tuple[Callable[[int], nn.Module], int, str]] = {
    # name: how it is made, how many vectors it trains, the paper
    "layer": (lambda width: nn.LayerNorm(width, eps=EPS), 2, "Ba et al., 2016"),
    "rms": (lambda width: nn.RMSNorm(width, eps=EPS), 1, "Zhang and Sennrich, 2019"),
    "crms": (Crms, 1, "Jiang et al., 2023"),
    "none": (lambda _: nn.Identity(), 0, ""),
}


def block(
    name: str, of: str, source: str = "", factor: Callable[[Site], float] | None = None
) -> Block:
    """The row of a norm `of` MADE, times a factor that the site tells."""
    make, vectors, paper = MADE[of]

    def module(config: Config, site: Site) -> nn.Module:
        return Norm(make(site.width), 1.0 if factor is None else factor(site))

    def cost(config: Config, site: Site) -> Cost:
        return Cost(params=vectors * site.width)

    return Block(
        name=name,
        symbol="",
        kind=Kind.NORM,
        causal=Causal.EITHER,
        source=source or paper,
        config=Config,
        module=module,
        cost=cost,
        samples=((Config(), Site(16, (4, 4))), (Config(), Site(6, (9,), True, layer=3, layers=5))),
    )


LAYER, RMS, CRMS, NONE = (block(name, name) for name in MADE)
