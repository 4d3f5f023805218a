"""One class for all tokens: a linear map of their mean.

Shapes: B batch, T tokens, D width. Next: `token_classes.py`.
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


class Classes(nn.Module):
    """[B, T, D] -> [B, classes]; padding does not count."""

    def __init__(self, config: Config, width: int, stem: nn.Module) -> None:
        super().__init__()
        self.linear = nn.Linear(width, config.classes)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        if real is None:
            mean = x.mean(1)
        else:
            counts = real.sum(1, keepdim=True).clamp(min=1)
            mean = x.masked_fill(~real[..., None], 0).sum(1) / counts
        logits: Tensor = self.linear(mean)
        return logits


def cost(config: Config, width: int, tokens: int, stem: Any) -> Cost:
    return linear(width, config.classes, 1)


HEAD = Head("classes", Config, Classes, cost, steps=False)
