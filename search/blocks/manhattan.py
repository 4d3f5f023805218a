"""Manhattan attention: softmax attention on a grid, fading with the distance down plus across.

MaSA of "RMT" (Fan et al., 2024). Head h keeps gamma[h] of what stands one step away:

    gamma[h] = 1 - 2^-(2 + reach h / H);   D[n, m] = gamma^(|down| + |across|)
    inside:   softmax(q k^T + log D) v          as the released code has it; rows add up to 1
    outside:  (softmax(q k^T) * D) v            as the paper writes it

Decomposed, tokens look along their row, then along their column, which costs T (G + W) and not T^2;
it is the same only where all scores are equal, and inside. A 5 x 5 convolution of v is added.

Shapes: B batch, T = G * W tokens, D width, H heads, K = D / H head width. Never causal.
Next: `attention.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .block import Block, Causal, Kind, Site
from .conv import GridConv
from .cost import Cost, depthwise, linear, product
from .normalise import never
from .positions import distances, rotate

SIZE = 5
NEAREST = 2.0  # the first head keeps 1 - 2^-2 of its neighbours


@dataclass(frozen=True)
class Config:
    heads: int
    reach: int
    """How much slower the last heads fade than the first, in powers of two."""
    decomposed: bool
    inside: bool
    """Whether the decay is inside of the softmax."""


class Manhattan(nn.Module):
    """[B, T, D] -> [B, T, D]"""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        self.config, self.site = config, site
        self.scale = site.head_width(config.heads, even=True) ** -0.5
        self.qkv = nn.Linear(site.width, 3 * site.width)
        self.near = GridConv(site.width, SIZE, site, bias=True)
        self.out = nn.Linear(site.width, site.width)
        for weight in self.qkv.weight.chunk(3):
            nn.init.xavier_normal_(weight, gain=2**-2.5)
        nn.init.xavier_normal_(self.out.weight)
        self.log_gammas = log_gammas(config.heads, config.reach)
        grids = [(size,) for size in site.grid] if config.decomposed else [site.grid]
        for axis, grid in enumerate(grids):  # [n, n] each
            self.register_buffer(f"apart{axis}", distances(grid), persistent=False)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        if real is not None:
            v = v.masked_fill(~real[..., None], 0)
        near = self.near(v)
        q, k, v = (p.unflatten(-1, (self.config.heads, -1)).transpose(1, 2) for p in (q, k, v))
        turn = _angles(x.shape[1], q.shape[-1], x.device)
        q, k = rotate(q, turn), rotate(k, turn) * self.scale  # [B, H, T, K]
        if self.config.decomposed:
            mixed = self._by_axes(q, k, v, real)
        else:
            seen = None if real is None else real[:, None, None, :]
            mixed = self._mix(q, k, v, self.decay(x, 0), seen)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2) + near)
        return out

    def decay(self, x: Tensor, axis: int) -> Tensor:
        """[H, n, n]: the logarithm of D along an axis, or on the whole grid."""
        gammas = x.new_tensor(self.log_gammas)[:, None, None]
        return gammas * self.get_buffer(f"apart{axis}")

    def _by_axes(self, q: Tensor, k: Tensor, v: Tensor, real: Tensor | None) -> Tensor:
        """Along rows, then along columns."""
        q, k, v = (part.unflatten(2, self.site.grid) for part in (q, k, v))  # [B, H, G, W, K]
        across = down = None
        if real is not None:
            grid = real.unflatten(1, self.site.grid)[:, None]  # [B, 1, G, W]
            across, down = grid[..., None, :], grid.transpose(-1, -2)[..., None, :]
        v = self._mix(q, k, v, self.decay(q, 1).unsqueeze(1), across)
        q, k, v = (part.transpose(2, 3) for part in (q, k, v))  # [B, H, W, G, K]
        return self._mix(q, k, v, self.decay(q, 0).unsqueeze(1), down).transpose(2, 3).flatten(2, 3)

    def _mix(self, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, seen: Tensor | None) -> Tensor:
        """Attention along the last axis but one, whose n tokens fade by `decay` [H, .., n, n]."""
        scores = q @ k.transpose(-1, -2)
        if self.config.inside:
            scores = scores + decay
        if seen is not None:
            scores = scores.masked_fill(~seen, never(scores))
        weights = F.softmax(scores, -1)
        return (weights if self.config.inside else weights * decay.exp()) @ v


def log_gammas(heads: int, reach: float) -> list[float]:
    """How much each head forgets per step: the logarithm of what it keeps.

    >>> [round(math.exp(g), 5) for g in log_gammas(4, 4)]
    [0.75, 0.875, 0.9375, 0.96875]
    """
    return [math.log1p(-(2.0 ** -(NEAREST + reach * h / heads))) for h in range(heads)]


def _angles(tokens: int, width: int, device: torch.device) -> Tensor:
    """[T, K / 2]: the rotation of RMT, whose slowest pair turns by t / 10000."""
    pairs = torch.arange(width // 2, dtype=torch.float64, device=device)
    rates = 10000.0 ** (-pairs / max(width // 2 - 1, 1))
    return torch.arange(tokens, device=device)[:, None] * rates


def cost(config: Config, site: Site) -> Cost:
    width, heads, tokens = site.width // config.heads, config.heads, site.tokens
    down, across = site.grid
    seen = [(across, down), (down, across)] if config.decomposed else [(tokens, 1)]
    mixed = Cost()
    for size, times in seen:
        mixed += product(size, width, size, times * heads)
        mixed += product(size, size, width, times * heads)
    return (
        linear(site.width, 3 * site.width, tokens)
        + mixed
        + depthwise(site.width, SIZE * SIZE, tokens)
        + linear(site.width, site.width, tokens)
    )


BLOCK = Block(
    name="manhattan",
    symbol="m",
    kind=Kind.MIXER,
    causal=Causal.NEVER,
    source="Fan et al., 2024",
    config=Config,
    module=Manhattan,
    cost=cost,
    samples=(
        (Config(heads=4, reach=4, decomposed=False, inside=True), Site(16, (4, 4))),
        (Config(heads=1, reach=4, decomposed=True, inside=True), Site(6, (2, 3))),
        (Config(heads=2, reach=6, decomposed=True, inside=False), Site(8, (3, 2))),
    ),
    grids=(2,),
)
