"""Continuous series as tokens: stretches that do not overlap, each a linear map of its values.

"A Time Series is Worth 64 Words" (PatchTST, Nie et al., 2023), with all channels of a stretch in
one token.

Shapes: B batch, C channels, L length, T tokens, P patch, D width. Next: `tokens.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..blocks.block import State
from ..blocks.cost import Cost, linear
from .end import Positions, Stem


@dataclass(frozen=True)
class Config:
    channels: int
    length: int
    patch: int
    """Values of a stretch, in each channel."""
    causal: bool
    positions: bool
    """Whether tokens are told where they stand."""


class Stretches(nn.Module):
    """[B, C, L] -> [B, T, D]"""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        (tokens,) = grid(config)
        self.patches = nn.Conv1d(config.channels, width, config.patch, stride=config.patch)
        self.positions = Positions(tokens, width) if config.positions else None

    def forward(self, series: Tensor) -> Tensor:
        x: Tensor = self.patches(series).transpose(1, 2)
        return x if self.positions is None else self.positions(x)

    def begin(self, batch: int) -> State:
        """How many tokens there were."""
        return torch.zeros(1, dtype=torch.long, device=self.patches.weight.device)

    def step(self, stretch: Tensor, at: State) -> tuple[Tensor, State]:
        """The next token, of a stretch [B, C, P]."""
        x = self.patches(stretch).squeeze(-1)
        return (x if self.positions is None else self.positions.step(x, at)), at + 1


def grid(config: Config) -> tuple[int, ...]:
    if config.length % config.patch:
        raise ValueError(f"patches of {config.patch} do not divide a series of {config.length}")
    return (config.length // config.patch,)


def cost(config: Config, width: int) -> Cost:
    (tokens,) = grid(config)
    table = Cost(params=tokens * width if config.positions else 0)
    return linear(config.channels * config.patch, width, tokens) + table


def example(config: Config, batch: int) -> Tensor:
    return torch.randn(batch, config.channels, config.length)


STEM = Stem("series", Config, Stretches, grid, lambda config: config.causal, cost, example)
