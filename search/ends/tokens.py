"""Token sequences: a trained vector for each entry of a vocabulary.

Shapes: B batch, T tokens, V vocabulary, D width. Next: `language.py`, which may share the table.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..blocks.block import State
from ..blocks.cost import Cost
from .end import POSITION, Positions, Stem


@dataclass(frozen=True)
class Config:
    vocabulary: int
    length: int
    """Tokens at most."""
    causal: bool
    positions: bool
    """Whether tokens are told where they stand."""


class Embedding(nn.Module):
    """[B, T], whole numbers below V -> [B, T, D]"""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(config.vocabulary, width)
        nn.init.normal_(self.table.weight, std=POSITION)
        self.positions = Positions(config.length, width) if config.positions else None

    def forward(self, tokens: Tensor) -> Tensor:
        x: Tensor = self.table(tokens)
        return x if self.positions is None else self.positions(x)

    def begin(self, batch: int) -> State:
        """How many tokens there were."""
        return torch.zeros(1, dtype=torch.long, device=self.table.weight.device)

    def step(self, tokens: Tensor, at: State) -> tuple[Tensor, State]:
        """The next token, [B]."""
        x = self.table(tokens)
        return (x if self.positions is None else self.positions.step(x, at)), at + 1


def cost(config: Config, width: int) -> Cost:
    rows = config.vocabulary + (config.length if config.positions else 0)
    return Cost(params=rows * width)


def example(config: Config, batch: int) -> Tensor:
    return torch.randint(config.vocabulary, (batch, config.length))


STEM = Stem(
    "tokens",
    Config,
    Embedding,
    lambda config: (config.length,),
    lambda config: config.causal,
    cost,
    example,
)
