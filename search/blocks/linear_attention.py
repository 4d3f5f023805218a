"""Gated linear attention with decay: no softmax, and older tokens fade at a fixed rate.

GLA of "TransNormerLLM" (Qin et al., 2023), computed in chunks as its Lightning Attention:

    q, k = silu(..), silu(..);   y[t] = sum over s <= t of lambda^(t-s) (q[t] k[s]) v[s]
    out(u * srms(y)),            srms(y) = y / (|y| / sqrt(D) + 1e-6)

Deeper layers fade slower; the last hardly at all. With `rotate`, q and k are turned by angles that
are learned (LRPE), which doubles their width; the paper does so in the first layer.

Shapes: B batch, T tokens, D width, H heads, K = D / H head width. Causal always.
Next: `retention.py`, the same with other rates and another gate.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .block import Block, Causal, Kind, Site
from .cost import Cost, linear
from .fading import Fading
from .normalise import simple_rms_norm
from .positions import slopes
from .recurrence import recurrence_cost, wide


@dataclass(frozen=True)
class Config:
    heads: int
    chunk: int
    """Only a matter of speed."""
    rotate: bool


class LinearAttention(Fading):
    """[B, T, D] -> [B, T, D]"""

    def __init__(self, config: Config, site: Site) -> None:
        width = site.head_width(config.heads)
        kept = (config.heads, width, width * (1 + config.rotate))
        super().__init__(log_decays(config, site), kept, config.chunk)
        self.config = config
        self.qkvu = nn.Linear(site.width, 4 * site.width, bias=False)
        self.out = nn.Linear(site.width, site.width, bias=False)
        rates = 10000.0 ** (-2 * torch.arange(site.width) / site.width)
        self.angles = nn.Parameter(rates) if config.rotate else None  # flat: not to be decayed

    def _parts(self, x: Tensor, at: Tensor) -> tuple[Tensor, ...]:
        """q and k [B, T, H, K or 2 K], v [B, T, H, K], u [B, T, D] of tokens at `at` [T]."""
        q, k, v, u = self.qkvu(x).chunk(4, -1)
        q, k, v = (part.unflatten(-1, (self.config.heads, -1)) for part in (q, k, v))
        q, k = F.silu(q), F.silu(k)
        if self.angles is not None:
            angles = wide(self.angles).view(self.config.heads, -1)
            turn = at[:, None, None] * angles  # [T, H, K]
            cos, sin = turn.cos().to(x.dtype), turn.sin().to(x.dtype)
            q, k = (torch.cat([part * cos, part * sin], -1) for part in (q, k))
        return q, k, v, u

    def _out(self, y: Tensor, u: Tensor) -> Tensor:
        mixed: Tensor = self.out(u * simple_rms_norm(y.flatten(-2)))
        return mixed


def log_decays(config: Config, site: Site) -> list[float]:
    """log lambda of each head: minus its slope, times how far from the end the layer is."""
    left = 1 - site.layer / max(site.layers - 1, 1) + 1e-5
    return [-slope * left for slope in slopes(config.heads)]


def cost(config: Config, site: Site) -> Cost:
    width = site.width // config.heads
    keys = 2 * width if config.rotate else width
    return (
        linear(site.width, 4 * site.width, site.tokens, bias=False)
        + recurrence_cost(site.tokens, config.chunk, config.heads, width, config.heads, keys)
        + Cost(params=site.width if config.rotate else 0)
        + linear(site.width, site.width, site.tokens, bias=False)
    )


BLOCK = Block(
    name="linear_attention",
    symbol="L",
    kind=Kind.MIXER,
    causal=Causal.ALWAYS,
    source="Qin et al., 2023",
    config=Config,
    module=LinearAttention,
    cost=cost,
    samples=(
        (Config(heads=4, chunk=8, rotate=False), Site(16, (4, 4))),
        (Config(heads=2, chunk=4, rotate=True), Site(6, (9,), causal=True, layer=1, layers=3)),
    ),
)
