"""The next token of a vocabulary, for each token: what a language model says.

The table may be the stem's ("Using the Output Embedding to Improve Language Models", Press and
Wolf, 2017). No bias.

Shapes: B batch, T tokens, D width, V vocabulary. Next: `tokens.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from ..blocks.cost import Cost, linear
from .end import POSITION, Head
from .tokens import Embedding


@dataclass(frozen=True)
class Config:
    tied: bool
    """Whether the table is that of the stem."""


class Language(nn.Module):
    """[B, T, D] -> [B, T, V]"""

    def __init__(self, config: Config, width: int, stem: nn.Module) -> None:
        super().__init__()
        rows, columns = _table(stem).weight.shape
        if config.tied and columns != width:
            raise ValueError(f"the last stage is {width} wide, the table of the stem {columns}")
        self.linear = nn.Linear(width, rows, bias=False)
        nn.init.normal_(self.linear.weight, std=POSITION)
        if config.tied:
            self.linear.weight = _table(stem).weight

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        return self.step(x)

    def step(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x)
        return logits


def _table(stem: nn.Module) -> nn.Embedding:
    if not isinstance(stem, Embedding):
        raise ValueError("a language model wants the stem of tokens")
    return stem.table


def cost(config: Config, width: int, tokens: int, stem: Any) -> Cost:
    found = linear(width, stem.vocabulary, tokens, bias=False)
    return replace(found, params=0) if config.tied else found


HEAD = Head("language", Config, Language, cost, steps=True)
