"""DiagAttention: softmax attention inside of chunks that do not overlap, and nothing between them.

The early layers of TransNormer ("The Devil in Linear Transformer", Qin et al., 2022), its second
form; later layers (`norm_attention.py`) see the rest.

Shapes: B batch, T tokens, D width, H heads, K = D / H head width, Q chunk, C chunks
(Q * C >= T). Next: `attention.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .block import Block, Causal, Kind, Site, State
from .cost import Cost, linear, product
from .normalise import never


@dataclass(frozen=True)
class Config:
    heads: int
    chunk: int
    """Tokens that see each other."""


class DiagAttention(nn.Module):
    """[B, T, D] -> [B, T, D]. With padding on the left chunks would begin elsewhere: put it on the
    right."""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        self.config, self.causal = config, site.causal
        self.head_width = site.head_width(config.heads)
        self.scale = self.head_width**-0.5
        self.q = nn.Linear(site.width, site.width)
        self.k = nn.Linear(site.width, site.width)
        self.v = nn.Linear(site.width, site.width)
        self.out = nn.Linear(site.width, site.width)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        tokens, chunk = x.shape[1], min(self.config.chunk, x.shape[1])
        missing = -tokens % chunk
        seen = torch.ones(1, tokens, dtype=torch.bool, device=x.device) if real is None else real
        seen = F.pad(seen, (0, missing)).unflatten(1, (-1, chunk))[:, :, None, None]  # [.,C,1,1,Q]
        if self.causal:
            seen = seen & torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).tril()
        chunks = (
            F.pad(part, (0, 0, 0, missing)).unflatten(1, (-1, chunk))
            for part in (self.q(x), self.k(x), self.v(x))
        )
        q, k, v = (c.unflatten(-1, (self.config.heads, -1)).transpose(2, 3) for c in chunks)
        scores = q @ k.transpose(-1, -2) * self.scale  # [B, C, H, Q, Q]
        scores = scores.masked_fill(~seen, never(x))
        y = (F.softmax(scores, -1) @ v).transpose(2, 3)  # [B, C, Q, H, K]
        mixed: Tensor = self.out(y.flatten(3).flatten(1, 2)[:, :tokens])
        return mixed

    def begin(self, batch: int) -> State:
        """Keys and values of the chunk so far, none [B, H, 0, K]."""
        none = self.out.weight.new_zeros(batch, self.config.heads, 0, self.head_width)
        return none, none

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        parts = (self.q(x), self.k(x), self.v(x))
        q, k, v = (p.unflatten(-1, (self.config.heads, 1, -1)) for p in parts)  # [B, H, 1, K]
        if state[0].shape[2] == self.config.chunk:
            state = self.begin(len(x))
        k, v = torch.cat([state[0], k], 2), torch.cat([state[1], v], 2)
        weights = F.softmax(q @ k.transpose(-1, -2) * self.scale, -1)
        return self.out((weights @ v).flatten(1)), (k, v)


def cost(config: Config, site: Site) -> Cost:
    width, heads, tokens = site.width // config.heads, config.heads, site.tokens
    chunk = min(config.chunk, tokens)
    times = -(-tokens // chunk) * heads
    return (
        linear(site.width, site.width, tokens)
        + linear(site.width, site.width, tokens)
        + linear(site.width, site.width, tokens)
        + product(chunk, width, chunk, times)
        + product(chunk, chunk, width, times)
        + linear(site.width, site.width, tokens)
        + Cost(state=2 * site.width * chunk)
    )


BLOCK = Block(
    name="diag_attention",
    symbol="d",
    kind=Kind.MIXER,
    causal=Causal.EITHER,
    source="Qin et al., 2022",
    config=Config,
    module=DiagAttention,
    cost=cost,
    samples=(
        (Config(heads=4, chunk=8), Site(width=16, grid=(4, 4))),
        (Config(heads=2, chunk=4), Site(width=6, grid=(9,), causal=True)),
        (Config(heads=2, chunk=4), Site(8, (2, 3), causal=True)),
    ),
)
