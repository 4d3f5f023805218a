"""A whole sequence out of its last token: what that one holds, told where it is to be, becomes each
token in turn.

The decoder of the compression task of "Mechanistic Design and Scaling of Hybrid Architectures"
(MAD, Poli et al., 2024), without the norms between its layers. Places are sines and cosines of
"Attention Is All You Need" (Vaswani et al., 2017): nothing about them is trained.

Shapes: B batch, T tokens, L length of what goes out, D width, H hidden. Next: `language.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..blocks.cost import Cost, linear
from .end import Head

LONGEST = 10_000.0  # of the wavelengths, in radians


@dataclass(frozen=True)
class Config:
    classes: int
    """Kinds of tokens that go out."""
    length: int
    """How many."""
    hidden: int


class Unfold(nn.Module):
    """[B, T, D] -> [B, L, classes], of the last token that is no padding."""

    places: Tensor

    def __init__(self, config: Config, width: int, stem: nn.Module) -> None:
        super().__init__()
        self.register_buffer("places", places(config.length, width), persistent=False)
        self.decoder = nn.Sequential(
            nn.Linear(width, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, config.classes),
        )

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        if real is None:
            last = x[:, -1]
        else:
            at = torch.arange(x.shape[1], device=x.device)
            place = torch.where(real, at, 0).amax(1)  # of a sequence without tokens, the first
            last = x[torch.arange(len(x), device=x.device), place]
        logits: Tensor = self.decoder(last[:, None] + self.places)
        return logits


def places(length: int, width: int) -> Tensor:
    """[L, D]: the sine and the cosine of a place, for wavelengths from 2 pi to `LONGEST`."""
    rates = torch.exp(-math.log(LONGEST) * torch.arange(0, width, 2) / width)
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]


def cost(config: Config, width: int, tokens: int, stem: Any) -> Cost:
    total = linear(width, config.hidden, config.length)
    total += linear(config.hidden, config.hidden, config.length)
    return total + linear(config.hidden, config.classes, config.length)


HEAD = Head("unfold", Config, Unfold, cost, steps=False)
