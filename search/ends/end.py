"""`Stem` and `Head`: the contracts of what stands before the first and behind the last layer.

    stem(inputs)                    -> x [B, T, D]
    head(x, real=None)              -> outputs; `real` [B, T] is False where a token is padding
    stem.begin(batch), stem.step(inputs, state)     one token at a time, where the stem is causal
    head.step(x)                                    its output, where it reads each token by itself

B batch, T tokens, D width. They must not know the layers. Next: `image.py`, `classes.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..blocks.cost import Cost

POSITION = 0.02  # standard deviation of positions and embeddings at the start


@dataclass(frozen=True)
class Stem:
    """`module(config, width)` makes it, `grid(config)` is how its tokens lie, `causal(config)` says
    whether no token may see a later one, `example(config, batch)` makes an input. `grid` raises
    ValueError, in words for users, where the settings do not fit each other."""

    name: str
    config: type[Any]
    module: Callable[[Any, int], nn.Module]
    grid: Callable[[Any], tuple[int, ...]]
    causal: Callable[[Any], bool]
    cost: Callable[[Any, int], Cost]
    example: Callable[[Any, int], Tensor]


@dataclass(frozen=True)
class Head:
    """`module(config, width, stem)` makes it; it raises ValueError where it does not fit the stem.
    `cost(config, width, tokens, stem)` is told the config of the stem. `steps` says whether it
    reads each token by itself."""

    name: str
    config: type[Any]
    module: Callable[[Any, int, nn.Module], nn.Module]
    cost: Callable[[Any, int, int, Any], Cost]
    steps: bool


class Positions(nn.Module):
    """Adds a trained vector to each token, by where it stands: [B, T, D] -> [B, T, D]."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(tokens, width) * POSITION)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table[: x.shape[1]]

    def step(self, x: Tensor, at: Tensor) -> Tensor:
        """Of the token at place `at` [1]."""
        return x + self.table[at]
