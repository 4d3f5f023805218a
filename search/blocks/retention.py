"""Retention: linear attention whose heads fade at fixed rates, normalised head by head and gated.

"Retentive Network" (Sun et al., 2023), as TimelyGPT (Song et al., 2023) sets it: rates
1 - exp(linspace(log 1/32, log 1/512)), queries and keys rotated with xPos, values wider. The scale
of xPos grows with the position: rows of more than some 30,000 tokens overflow float32.

    y[t] = sum over s <= t of gamma^(t-s) (q[t] k[s]) v[s];    out(silu(gate(x)) * norm(y))

Shapes: B batch, T tokens, D width, H heads, K = D / H head width, P = expand * K value width.
Causal always. Next: `recurrence.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .block import Block, Causal, Kind, Site
from .cost import Cost, linear
from .fading import Fading
from .positions import angles, rotate
from .recurrence import recurrence_cost

XPOS_SCALE = 512  # tokens after which a channel has faded by its whole rate
XPOS_OFFSET = 0.4  # of the channels' rates


@dataclass(frozen=True)
class Config:
    heads: int
    expand: int
    """Width of the values, in widths."""
    chunk: int
    """Only a matter of speed."""


class Retention(Fading):
    """[B, T, D] -> [B, T, D]"""

    def __init__(self, config: Config, site: Site) -> None:
        width = site.head_width(config.heads, even=True)
        kept = (config.heads, config.expand * width, width)
        super().__init__(log_decays(config.heads), kept, config.chunk)
        self.config = config
        inner = config.expand * site.width
        self.parts = [site.width, site.width, inner, inner]
        self.qkvg = nn.Linear(site.width, sum(self.parts), bias=False)
        self.weight = nn.Parameter(torch.ones(inner))
        self.bias = nn.Parameter(torch.zeros(inner))
        self.out = nn.Linear(inner, site.width, bias=False)

    def _parts(self, x: Tensor, at: Tensor) -> tuple[Tensor, ...]:
        """q and k [B, T, H, K], v [B, T, H, P], gate [B, T, E] of tokens at `at` [T]."""
        *qkv, gate = self.qkvg(x).split(self.parts, -1)
        q, k, v = (part.unflatten(-1, (self.config.heads, -1)) for part in qkv)
        width = q.shape[-1]
        turn, fade = angles(at, width), xpos(at, width).to(x.dtype)
        q, k = (rotate(part.transpose(1, 2), turn) for part in (q, k))  # [B, H, T, K]
        q, k = q * fade, k / fade * width**-0.5
        return q.transpose(1, 2), k.transpose(1, 2), v, gate

    def _out(self, y: Tensor, gate: Tensor) -> Tensor:
        y = F.layer_norm(y, y.shape[-1:]).flatten(-2) * self.weight + self.bias
        mixed: Tensor = self.out(F.silu(gate) * y)
        return mixed


def log_decays(heads: int) -> list[float]:
    """log gamma of each head.

    >>> [round(math.exp(g), 6) for g in log_decays(3)]
    [0.96875, 0.992188, 0.998047]
    """
    first, last = math.log(1 / 32), math.log(1 / 512)
    shares = (head / max(heads - 1, 1) for head in range(heads))
    return [math.log1p(-math.exp(first + (last - first) * share)) for share in shares]


def xpos(at: Tensor, width: int) -> Tensor:
    """[T, K]: what queries at the positions `at` [T] are multiplied with, and keys divided by, as
    in "A Length-Extrapolatable Transformer" (Sun et al., 2022); alike for adjacent channels."""
    channels = torch.arange(0, width, 2, dtype=torch.float64, device=at.device) / width
    rates = (channels + XPOS_OFFSET) / (1 + XPOS_OFFSET)
    return (rates ** (at[:, None] / XPOS_SCALE)).repeat_interleave(2, -1)


def cost(config: Config, site: Site) -> Cost:
    width, inner = site.width // config.heads, config.expand * site.width
    values = config.expand * width
    return (
        linear(site.width, 2 * (site.width + inner), site.tokens, bias=False)
        + recurrence_cost(site.tokens, config.chunk, config.heads, values, config.heads, width)
        + Cost(params=2 * inner)
        + linear(inner, site.width, site.tokens, bias=False)
    )


BLOCK = Block(
    name="retention",
    symbol="R",
    kind=Kind.MIXER,
    causal=Causal.ALWAYS,
    source="Sun et al., 2023",
    config=Config,
    module=Retention,
    cost=cost,
    samples=(
        (Config(heads=4, expand=2, chunk=8), Site(16, (4, 4))),
        (Config(heads=1, expand=1, chunk=4), Site(6, (9,), causal=True)),
    ),
)
