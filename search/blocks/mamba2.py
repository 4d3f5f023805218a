"""Mamba-2: a state that decays and is written to by each token in turn, read by each token.

"Transformers are SSMs" (Dao and Gu, 2024); the layer around `recurrence.py`. It is causal: the
tokens of a grid are read row by row, and each sees only those before it.

    z, x, b, c, dt = in(u);  x, b, c = silu(conv(x, b, c));  dt = softplus(dt + dt_bias)
    h[t] = exp(-dt exp(A_log)) h[t-1] + dt x[t] b[t]^T;      y[t] = h[t] c[t] + D x[t]
    out(rms(y * silu(z)))

Shapes: B batch, T tokens, D width, E = expand * D, H heads, P = E / H head width, N state. `b` and
`c` are shared by the heads (one group). Next: `phi_mamba.py`, its discrete form.
"""

from __future__ import annotations

import math
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
    expand: int
    """Inner width, in widths."""
    head_width: int
    state: int
    conv: int
    """How many tokens, the last included, the convolution before the recurrence sees."""
    chunk: int
    """Only a matter of speed."""


class Mamba2(nn.Module):
    """[B, T, D] -> [B, T, D]. `A_log`, `dt_bias` and `D` should not be decayed in training."""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        self.inner = config.expand * site.width
        if self.inner % config.head_width:
            width = config.head_width
            raise ValueError(f"heads of {width} do not divide the inner width {self.inner}")
        self.config = config
        self.heads = self.inner // config.head_width
        mixed = self.inner + 2 * config.state
        self.in_proj = nn.Linear(site.width, self.inner + mixed + self.heads, bias=False)
        self.conv = CausalConv(mixed, config.conv)
        self.A_log = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.dt_bias = nn.Parameter(_initial_dt_bias(self.heads))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = nn.RMSNorm(self.inner, eps=1e-5)
        self.out_proj = nn.Linear(self.inner, site.width, bias=False)

    def forward(self, u: Tensor, real: Tensor | None = None) -> Tensor:
        z, xbc, dt = self._split(u)
        x, dt, log_a, b, c = self._parts(self.conv(xbc, real), dt)
        y, _ = recur_chunked(x * dt[..., None], log_a, b, c, self.config.chunk, real=real)
        return self._out(y, x, z)

    def begin(self, batch: int) -> State:
        h = wide(self.A_log).new_zeros(batch, self.heads, self.config.head_width, self.config.state)
        return self.conv.begin(batch), h

    def step(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        seen, h = state
        z, xbc, dt = self._split(u)
        xbc, seen = self.conv.step(xbc, seen)
        x, dt, log_a, b, c = self._parts(xbc, dt)
        y, h = recur_step(x * dt[..., None], log_a, b, c, h)
        return self._out(y, x, z), (seen, h)

    def _split(self, u: Tensor) -> tuple[Tensor, ...]:
        """z [.., E], x b c together [.., E + 2 N], dt [.., H]"""
        sizes = [self.inner, self.inner + 2 * self.config.state, self.heads]
        parts: tuple[Tensor, ...] = self.in_proj(u).split(sizes, -1)
        return parts

    def _parts(self, xbc: Tensor, dt: Tensor) -> tuple[Tensor, ...]:
        """x [.., H, P], dt and log_a [.., H], b and c [.., 1, N]"""
        state = self.config.state
        x, b, c = F.silu(xbc).split([self.inner, state, state], -1)
        dt = F.softplus(dt + self.dt_bias)
        x = x.unflatten(-1, (self.heads, -1))
        return x, dt, dt * -self.A_log.exp(), b.unsqueeze(-2), c.unsqueeze(-2)

    def _out(self, y: Tensor, x: Tensor, z: Tensor) -> Tensor:
        y = (y + self.D[:, None] * x).flatten(-2)  # [.., E]
        mixed: Tensor = self.out_proj(self.norm(y * F.silu(z)))
        return mixed


def _initial_dt_bias(heads: int) -> Tensor:
    """The inverse softplus of steps spread evenly, in logarithm, from 0.001 to 0.1."""
    dt = torch.empty(heads).uniform_(math.log(1e-3), math.log(1e-1)).exp().clamp(min=1e-4)
    return dt + torch.log(-torch.expm1(-dt))


def cost(config: Config, site: Site) -> Cost:
    inner, state = config.expand * site.width, config.state
    heads, mixed = inner // config.head_width, inner + 2 * state
    vectors = Cost(params=3 * heads + inner)
    return (
        linear(site.width, inner + mixed + heads, site.tokens, bias=False)
        + causal_conv_cost(mixed, config.conv, site.tokens)
        + recurrence_cost(site.tokens, config.chunk, heads, config.head_width, 1, state)
        + vectors
        + linear(inner, site.width, site.tokens, bias=False)
    )


BLOCK = Block(
    name="mamba2",
    symbol="M",
    kind=Kind.MIXER,
    causal=Causal.ALWAYS,
    source="Dao and Gu, 2024",
    config=Config,
    module=Mamba2,
    cost=cost,
    samples=(
        (
            Config(expand=2, head_width=16, state=16, conv=4, chunk=16),
            Site(width=16, grid=(8, 8)),
        ),
        (Config(expand=1, head_width=3, state=4, conv=2, chunk=4), Site(width=6, grid=(2, 3))),
        (Config(expand=2, head_width=4, state=3, conv=3, chunk=5), Site(6, (11,), causal=True)),
    ),
)
