"""A class for each token: tagging, segmentation, or numbers to predict for each.

Shapes: B batch, T tokens, D width. Next: `language.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..blocks.cost import Cost, linear
from .end import Head


@dataclass(frozen=True)
class Config:
    classes: int


class TokenClasses(nn.Module):
    """[B, T, D] -> [B, T, classes]"""

    def __init__(self, config: Config, width: int, stem: nn.Module) -> None:
        super().__init__()
        self.linear = nn.Linear(width, config.classes)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        return self.step(x)

    def step(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x)
        return logits


def cost(config: Config, width: int, tokens: int, stem: Any) -> Cost:
    return linear(width, config.classes, tokens)


HEAD = Head("token_classes", Config, TokenClasses, cost, steps=True)
