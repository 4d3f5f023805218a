"""Simplified linear attention: keys and queries through a ReLU, and a convolution for what is near.

SLA of "SLAB" (Guo et al., 2024). P [T, D] is learned and starts at zero; the convolution is the
same for every head:

    q, k = relu(Wq x), relu(Wk x + P);   out(q (sum of k v^T) / (q sum of k + 1e-6) + conv(v))

The cheaper of both orders of the product is taken: (q k^T) v where there are fewer tokens than a
head is wide.

Shapes: B batch, T tokens, D width, H heads, K = D / H head width. Sees all tokens, never causal.
Next: `norm_attention.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .block import Block, Causal, Kind, Site
from .conv import GridConv
from .cost import Cost, depthwise, linear, product
from .grids import window
from .recurrence import wide

SIZE = 5


@dataclass(frozen=True)
class Config:
    heads: int


class SimpleAttention(nn.Module):
    """[B, T, D] -> [B, T, D]"""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(site.width, 3 * site.width, bias=False)
        self.positions = nn.Parameter(torch.zeros(site.tokens, site.width))
        self.near = GridConv(site.head_width(config.heads), SIZE, site, bias=True)
        self.out = nn.Linear(site.width, site.width)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k = F.relu(q), F.relu(k + self.positions[: x.shape[1]])
        if real is not None:
            k, v = (part.masked_fill(~real[..., None], 0) for part in (k, v))
        q, k, v = (wide(p).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (q, k, v))
        if x.shape[1] > q.shape[-1]:
            mixed = q @ (k.transpose(-1, -2) @ v)  # [B, H, T, K]
        else:
            mixed = (q @ k.transpose(-1, -2)) @ v
        mixed = mixed / (q @ k.sum(-2).unsqueeze(-1) + 1e-6)
        near = self.near(v.flatten(0, 1).to(x.dtype)).unflatten(0, v.shape[:2])
        mixed = mixed.to(x.dtype) + near
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


def cost(config: Config, site: Site) -> Cost:
    width, tokens, heads = site.width // config.heads, site.tokens, config.heads
    if tokens > width:
        mixed = product(width, tokens, width, heads) + product(tokens, width, width, heads)
    else:
        mixed = product(tokens, width, tokens, heads) + product(tokens, tokens, width, heads)
    down, across = window(SIZE, site)
    near = depthwise(width, down * across, tokens * heads)
    return (
        linear(site.width, 3 * site.width, tokens, bias=False)
        + Cost(params=tokens * site.width)
        + mixed
        + product(tokens, width, 1, heads)
        + near
        + linear(site.width, site.width, tokens)
    )


BLOCK = Block(
    name="simple_attention",
    symbol="s",
    kind=Kind.MIXER,
    causal=Causal.NEVER,
    source="Guo et al., 2024",
    config=Config,
    module=SimpleAttention,
    cost=cost,
    samples=(
        (Config(heads=4), Site(width=16, grid=(4, 4))),
        (Config(heads=1), Site(width=12, grid=(9,))),
    ),
)
