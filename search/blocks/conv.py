"""Separable convolution as a token mixer: widen, look at the neighbours channel by channel, narrow.

SepConv of "MetaFormer Baselines for Vision" (Yu et al., 2024), which takes it from MobileNetV2:
pointwise to twice the width, activation, depthwise over a window of `size`, pointwise back, no
biases. We use GELU where the paper has StarReLU.

Shapes: B batch, T tokens, D width, E = 2 D. Next: `gated_conv.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .block import Block, Causal, Kind, Site, State
from .causal_conv import CausalConv, causal_conv_cost
from .cost import Cost, depthwise, linear
from .grids import as_image, as_tokens, check_odd, margins, window

EXPAND = 2


@dataclass(frozen=True)
class Config:
    size: int
    """Neighbours down and across, the middle included, odd; where causal, the last so many."""


class GridConv(nn.Conv2d):
    """[B, T, E] -> [B, T, E]: each channel by itself over a window of the grid; zeros stand around
    it, and in the place of padding."""

    def __init__(self, channels: int, size: int, site: Site, bias: bool = False) -> None:
        reach = window(size, site)
        left, _, above, _ = margins(size, site)
        super().__init__(
            channels, channels, reach, padding=(above, left), groups=channels, bias=bias
        )
        self.site = site

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        if real is not None:
            x = x.masked_fill(~real[..., None], 0)
        return as_tokens(super().forward(as_image(x, self.site)))


class SepConv(nn.Module):
    """[B, T, D] -> [B, T, D]"""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        check_odd(config.size, site, "convolution")
        wide = EXPAND * site.width
        self.widen = nn.Linear(site.width, wide, bias=False)
        self.depthwise: Any = neighbours(wide, config.size, site)
        self.narrow = nn.Linear(wide, site.width, bias=False)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        x = F.gelu(self.widen(x))  # [B, T, E]
        mixed: Tensor = self.narrow(self.depthwise(x, real))
        return mixed

    def begin(self, batch: int) -> State:
        return self.depthwise.begin(batch)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, state = self.depthwise.step(F.gelu(self.widen(x)), state)
        return self.narrow(y), state


def neighbours(channels: int, size: int, site: Site) -> nn.Module:
    """The convolution of a block without biases, over what the site lets a token see."""
    if site.causal:
        return CausalConv(channels, size, bias=False)
    return GridConv(channels, size, site)


def neighbours_cost(channels: int, size: int, site: Site) -> Cost:
    """Of `neighbours`."""
    if site.causal:
        return causal_conv_cost(channels, size, site.tokens, bias=False)
    down, across = window(size, site)
    return depthwise(channels, down * across, site.tokens, bias=False)


def cost(config: Config, site: Site) -> Cost:
    wide = EXPAND * site.width
    return (
        linear(site.width, wide, site.tokens, bias=False)
        + neighbours_cost(wide, config.size, site)
        + linear(wide, site.width, site.tokens, bias=False)
    )


BLOCK = Block(
    name="conv",
    symbol="c",
    kind=Kind.MIXER,
    causal=Causal.EITHER,
    source="Yu et al., 2024",
    config=Config,
    module=SepConv,
    cost=cost,
    samples=(
        (Config(size=3), Site(width=16, grid=(4, 4))),
        (Config(size=5), Site(width=6, grid=(2, 3))),
        (Config(size=3), Site(width=6, grid=(9,))),
        (Config(size=4), Site(width=6, grid=(9,), causal=True)),
        (Config(size=2), Site(8, (2, 3), causal=True)),
    ),
)
