"""NormAttention: linear attention without a denominator, its sum normalised instead.

"The Devil in Linear Transformer" (TransNormer, Qin et al., 2022): the denominator of kernel
attention can be tiny, and its gradient then explodes; a norm over the whole width bounds it.

    q, k = 1 + elu(..);   out(srms(sum over s of (q[t] k[s]) v[s]))

The paper also turns q and k by learned angles (LRPE); here tokens know where they stand from the
positions of the model.

Shapes: B batch, T tokens, D width, H heads, K = D / H head width. At a causal site the sum is over
s <= t, by the recurrence that does not decay. Next: `diag_attention.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .block import Block, Causal, Kind, Site, State
from .cost import Cost, linear, product
from .normalise import simple_rms_norm
from .recurrence import recur_chunked, recur_step, recurrence_cost, wide


@dataclass(frozen=True)
class Config:
    heads: int
    chunk: int
    """Only a matter of speed, at causal sites."""


class NormAttention(nn.Module):
    """[B, T, D] -> [B, T, D]"""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        self.head_width = site.head_width(config.heads)
        self.config, self.causal = config, site.causal
        self.qkv = nn.Linear(site.width, 3 * site.width)
        self.out = nn.Linear(site.width, site.width)
        for weight in self.qkv.weight.chunk(3):
            nn.init.xavier_uniform_(weight, gain=2**-0.5)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        q, k, v = self._parts(x)  # [B, T, H, K]
        if self.causal:
            fixed = torch.zeros_like(v[..., 0])
            y, _ = recur_chunked(v, fixed, k, q, self.config.chunk, real=real)
        else:
            if real is not None:
                v = v.masked_fill(~real[..., None, None], 0)
            q, k, v = (part.transpose(1, 2) for part in (q, k, v))
            y = (q @ (k.transpose(-1, -2) @ v)).transpose(1, 2)
        return self._out(y)

    def begin(self, batch: int) -> State:
        """The sum of v k^T, [B, H, K, K]"""
        width = self.head_width
        return wide(self.out.weight).new_zeros(batch, self.config.heads, width, width)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        q, k, v = self._parts(x)
        y, state = recur_step(v, torch.zeros_like(v[..., 0]), k, q, state)
        return self._out(y), state

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """q, k, v [.., H, K]"""
        q, k, v = (part.unflatten(-1, (self.config.heads, -1)) for part in self.qkv(x).chunk(3, -1))
        return 1 + F.elu(q), 1 + F.elu(k), v

    def _out(self, y: Tensor) -> Tensor:
        y = y.flatten(-2)
        mixed: Tensor = self.out(simple_rms_norm(y))
        return mixed


def cost(config: Config, site: Site) -> Cost:
    width, heads, tokens = site.width // config.heads, config.heads, site.tokens
    if site.causal:
        mixed = recurrence_cost(tokens, config.chunk, heads, width, heads, width)
    else:
        mixed = product(width, tokens, width, heads) + product(tokens, width, width, heads)
    return (
        linear(site.width, 3 * site.width, tokens) + mixed + linear(site.width, site.width, tokens)
    )


BLOCK = Block(
    name="norm_attention",
    symbol="n",
    kind=Kind.MIXER,
    causal=Causal.EITHER,
    source="Qin et al., 2022",
    config=Config,
    module=NormAttention,
    cost=cost,
    samples=(
        (Config(heads=4, chunk=8), Site(width=16, grid=(4, 4))),
        (Config(heads=2, chunk=4), Site(width=6, grid=(9,), causal=True)),
        (Config(heads=2, chunk=4), Site(8, (2, 3), causal=True)),
    ),
)
