"""Phi-Mamba: the discrete form of Mamba-2 that a Transformer can be distilled into.

MOHAWK, "Transformers to SSMs" (Bick et al., 2024). Every head has keys and queries of its own, as
attention has; the decay is a number of the token itself, and nothing is normalised:

    x, b, c, z, alpha = in(u);   x, b, c = conv(x, b, c), without activation
    h[t] = sigmoid(-alpha[t]) h[t-1] + x[t] b[t]^T;   y[t] = h[t] c[t] + D x[t]
    out(y * silu(z + z_bias))

Shapes: B batch, T tokens, D width, H heads, P = D / H head width, N state. Causal always.
Next: `recurrence.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .block import Block, Causal, Kind, Site, State
from .causal_conv import CausalConv, causal_conv_cost
from .cost import Cost, linear
from .recurrence import recur_chunked, recur_step, recurrence_cost, wide


@dataclass(frozen=True)
class Config:
    heads: int
    state: int
    conv: int
    """How many tokens, the last included, the convolution before the recurrence sees."""
    chunk: int
    """Only a matter of speed."""


class PhiMamba(nn.Module):
    """[B, T, D] -> [B, T, D]"""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        self.head_width = site.head_width(config.heads)
        self.config, self.width = config, site.width
        mixed = site.width + 2 * config.heads * config.state
        self.in_proj = nn.Linear(site.width, mixed + site.width + config.heads, bias=False)
        self.conv = CausalConv(mixed, config.conv)
        self.z_bias = nn.Parameter(torch.zeros(site.width))
        self.D = nn.Parameter(torch.ones(config.heads))
        self.out_proj = nn.Linear(site.width, site.width, bias=False)

    def forward(self, u: Tensor, real: Tensor | None = None) -> Tensor:
        xbc, z, alpha = self._split(u)
        x, b, c = self._heads(self.conv(xbc, real))
        y, _ = recur_chunked(x, F.logsigmoid(-alpha), b, c, self.config.chunk, real=real)
        return self._out(y, x, z)

    def begin(self, batch: int) -> State:
        h = wide(self.D).new_zeros(batch, self.config.heads, self.head_width, self.config.state)
        return self.conv.begin(batch), h

    def step(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        seen, h = state
        xbc, z, alpha = self._split(u)
        xbc, seen = self.conv.step(xbc, seen)
        x, b, c = self._heads(xbc)
        y, h = recur_step(x, F.logsigmoid(-alpha), b, c, h)
        return self._out(y, x, z), (seen, h)

    def _split(self, u: Tensor) -> tuple[Tensor, ...]:
        """x b c together [.., D + 2 H N], z [.., D], alpha [.., H]"""
        heads = self.config.heads
        mixed = self.width + 2 * heads * self.config.state
        parts: tuple[Tensor, ...] = self.in_proj(u).split([mixed, self.width, heads], -1)
        return parts

    def _heads(self, xbc: Tensor) -> tuple[Tensor, ...]:
        """x [.., H, P], b and c [.., H, N]"""
        heads, keys = self.config.heads, self.config.heads * self.config.state
        parts = xbc.split([self.width, keys, keys], -1)
        return tuple(part.unflatten(-1, (heads, -1)) for part in parts)

    def _out(self, y: Tensor, x: Tensor, z: Tensor) -> Tensor:
        y = (y + self.D[:, None] * x).flatten(-2)
        mixed: Tensor = self.out_proj(y * F.silu(z + self.z_bias))
        return mixed


def cost(config: Config, site: Site) -> Cost:
    width, heads, state = site.width, config.heads, config.state
    mixed = width + 2 * heads * state
    return (
        linear(width, mixed + width + heads, site.tokens, bias=False)
        + causal_conv_cost(mixed, config.conv, site.tokens)
        + recurrence_cost(site.tokens, config.chunk, heads, width // heads, heads, state)
        + Cost(params=width + heads)
        + linear(width, width, site.tokens, bias=False)
    )


BLOCK = Block(
    name="phi_mamba",
    symbol="P",
    kind=Kind.MIXER,
    causal=Causal.ALWAYS,
    source="Bick et al., 2024",
    config=Config,
    module=PhiMamba,
    cost=cost,
    samples=(
        (Config(heads=4, state=8, conv=4, chunk=8), Site(width=16, grid=(4, 4))),
        (Config(heads=2, state=3, conv=2, chunk=4), Site(6, (9,), causal=True)),
    ),
)
