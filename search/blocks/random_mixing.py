"""Random mixing: every token is a fixed mean of all, with weights drawn once and never trained.

"MetaFormer Baselines for Vision" (Yu et al., 2024): softmax over rows of uniform numbers. Only
tokens that are real take part, and at a causal site those before.

Shapes: B batch, T tokens, D width. Next: `pool.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .block import Block, Causal, Kind, Site, State
from .cost import Cost, product


@dataclass(frozen=True)
class Config:
    pass


class RandomMixing(nn.Module):
    """[B, T, D] -> [B, T, D], for as many tokens as the site has and no more. The weights are saved
    with the model."""

    weights: Tensor

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        self.site = site
        weights = torch.rand(site.tokens, site.tokens).exp()
        self.register_buffer("weights", weights.tril() if site.causal else weights)  # [T, T]

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        weights = self.weights[: x.shape[1], : x.shape[1]]
        if real is not None:  # a row of nothing but padding is padding: it becomes 0
            weights = weights * real[:, None, :]
        sums = weights.sum(-1, keepdim=True)
        return weights @ x / sums.masked_fill(sums == 0, 1)

    def begin(self, batch: int) -> State:
        """The tokens before, none [B, 0, D]."""
        return (self.weights.new_zeros(batch, 0, self.site.width),)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        seen = torch.cat([state[0], x.unsqueeze(1)], 1)
        weights = self.weights[seen.shape[1] - 1, : seen.shape[1]]
        return weights @ seen / weights.sum(), (seen,)


def cost(config: Config, site: Site) -> Cost:
    mixing = product(site.tokens, site.tokens, site.width)
    return mixing + Cost(state=site.tokens * site.width)


BLOCK = Block(
    name="random",
    symbol="r",
    kind=Kind.MIXER,
    causal=Causal.EITHER,
    source="Yu et al., 2024",
    config=Config,
    module=RandomMixing,
    cost=cost,
    samples=((Config(), Site(width=16, grid=(4, 4))), (Config(), Site(6, (9,), causal=True))),
)
