"""Gated short convolution: a product, a window of a few tokens, another product.

The convolution block of LFM2 (Liquid AI, "LFM2 Technical Report", 2025), which its search on real
CPUs chose for most layers:

    b, c, x = in(u);   out(c * conv(b * x))

Shapes: B batch, T tokens, D width. Next: `conv.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .block import Block, Causal, Kind, Site, State
from .conv import neighbours, neighbours_cost
from .cost import Cost, linear
from .grids import check_odd


@dataclass(frozen=True)
class Config:
    size: int
    """Neighbours, the middle included, odd; where causal, the last so many."""


class GatedConv(nn.Module):
    """[B, T, D] -> [B, T, D]"""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        check_odd(config.size, site, "convolution")
        self.in_proj = nn.Linear(site.width, 3 * site.width, bias=False)
        self.depthwise: Any = neighbours(site.width, config.size, site)
        self.out_proj = nn.Linear(site.width, site.width, bias=False)

    def forward(self, u: Tensor, real: Tensor | None = None) -> Tensor:
        b, c, x = self.in_proj(u).chunk(3, -1)
        mixed: Tensor = self.out_proj(c * self.depthwise(b * x, real))
        return mixed

    def begin(self, batch: int) -> State:
        return self.depthwise.begin(batch)

    def step(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        b, c, x = self.in_proj(u).chunk(3, -1)
        y, state = self.depthwise.step(b * x, state)
        return self.out_proj(c * y), state


def cost(config: Config, site: Site) -> Cost:
    return (
        linear(site.width, 3 * site.width, site.tokens, bias=False)
        + neighbours_cost(site.width, config.size, site)
        + linear(site.width, site.width, site.tokens, bias=False)
    )


BLOCK = Block(
    name="gated_conv",
    symbol="g",
    kind=Kind.MIXER,
    causal=Causal.EITHER,
    source="Liquid AI, 2025",
    config=Config,
    module=GatedConv,
    cost=cost,
    samples=(
        (Config(size=3), Site(width=16, grid=(4, 4))),
        (Config(size=3), Site(width=6, grid=(9,))),
        (Config(size=4), Site(width=6, grid=(9,), causal=True)),
    ),
)
