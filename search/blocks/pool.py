"""Pooling as a token mixer: the mean of the neighbours, minus the token. It has no parameters.

"MetaFormer is Actually What You Need for Vision" (Yu et al., 2022). The token itself is taken
off because the layer around adds it again. Only tokens inside the grid count, and no padding.

Shapes: B batch, T tokens, D width. Next: `conv.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .block import Block, Causal, Kind, Site, State
from .cost import Cost
from .grids import as_image, as_tokens, check_odd, margins, window


@dataclass(frozen=True)
class Config:
    size: int
    """Neighbours down and across, the middle included, odd; where causal, the last so many."""


class Pool(nn.Module):
    """[B, T, D] -> [B, T, D]"""

    none: Tensor

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        check_odd(config.size, site, "pool")
        self.size, self.site = config.size, site
        self.register_buffer("none", torch.empty(0), persistent=False)  # knows device and dtype

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        if real is None:
            return self._sum(x) / self._sum(x.new_ones(1, x.shape[1], 1)) - x
        counts = self._sum(real[..., None].to(x.dtype))
        # a token without a real neighbour is padding itself: 0 will do
        sums = self._sum(x.masked_fill(~real[..., None], 0))
        return sums / counts.masked_fill(counts == 0, 1) - x

    def begin(self, batch: int) -> State:
        """The tokens before [B, S - 1, D], and how many there were."""
        before = self.none.new_zeros(batch, self.size - 1, self.site.width)
        return before, torch.zeros(1, dtype=torch.long, device=before.device)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        before, at = state
        seen = torch.cat([before, x.unsqueeze(1)], 1)
        mean = seen.sum(1) / (at + 1).clamp(max=self.size)
        return mean - x, (seen[:, 1:], at + 1)

    def _sum(self, x: Tensor) -> Tensor:
        """The sum over each window, what lies outside of the grid counting as zeros."""
        padded = F.pad(as_image(x, self.site), margins(self.size, self.site))
        reach = window(self.size, self.site)
        return as_tokens(F.avg_pool2d(padded, reach, 1, divisor_override=1))


def cost(config: Config, site: Site) -> Cost:
    return Cost(state=(config.size - 1) * site.width)


BLOCK = Block(
    name="pool",
    symbol="p",
    kind=Kind.MIXER,
    causal=Causal.EITHER,
    source="Yu et al., 2022",
    config=Config,
    module=Pool,
    cost=cost,
    samples=(
        (Config(size=3), Site(width=16, grid=(4, 4))),
        (Config(size=5), Site(width=6, grid=(2, 3))),
        (Config(size=3), Site(width=6, grid=(9,))),
        (Config(size=4), Site(width=6, grid=(9,), causal=True)),
        (Config(size=2), Site(8, (2, 3), causal=True)),
    ),
)
