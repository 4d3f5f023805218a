"""Aaren: attention whose query is learned and the same for every token, so that it is a recurrence.

"Attention as an RNN" (Feng et al., 2024). The softmax over a growing prefix is a scan over (m, u,
w): the largest score, the sum of weights below it, and their weighted sum of values.

    s[i] = q k[i] / sqrt(K);   y[t] = sum over i <= t of e^s[i] v[i] / sum over i <= t of e^s[i]

Shapes: B batch, T tokens, D width, H heads, K = D / H head width. Causal always.
Next: `recurrence.py`, where what is kept decays.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .block import Block, Causal, Kind, Site, State
from .cost import Cost, linear, product
from .normalise import never


@dataclass(frozen=True)
class Config:
    heads: int


class Aaren(nn.Module):
    """[B, T, D] -> [B, T, D]"""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        self.heads, self.scale = config.heads, site.head_width(config.heads) ** -0.5
        self.token = nn.Parameter(torch.randn(site.width) * 0.02)
        self.q = nn.Linear(site.width, site.width, bias=False)
        self.kv = nn.Linear(site.width, 2 * site.width, bias=False)
        self.out = nn.Linear(site.width, site.width, bias=False)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        scores, v = self._parts(x)  # [B, T, H], [B, T, H, K]
        if real is not None:
            scores = scores.masked_fill(~real[..., None], never(scores))
        _, u, w = prefixes(scores, v)
        mixed: Tensor = self.out((w / u[..., None]).flatten(-2))
        return mixed

    def begin(self, batch: int) -> State:
        """m and u [B, H], w [B, H, K]"""
        w = self.token.new_zeros(batch, self.heads, len(self.token) // self.heads)
        return w[..., 0] + never(w), w[..., 0], w

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        scores, v = self._parts(x)
        state = combine(state, (scores, torch.ones_like(scores), v))
        return self.out((state[2] / state[1][..., None]).flatten(-2)), state

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [.., H] and values [.., H, K]."""
        k, v = (part.unflatten(-1, (self.heads, -1)) for part in self.kv(x).chunk(2, -1))
        query = self.q(self.token).view(self.heads, -1, 1)  # [H, K, 1]
        scores = (k.unsqueeze(-2) @ query).flatten(-3)
        return scores * self.scale, v


def combine(one: tuple[Tensor, ...], two: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """(m, u, w) of two stretches, the first before the second: m and u [.., H], w [.., H, K]."""
    m = torch.maximum(one[0], two[0])
    first, second = (one[0] - m).exp(), (two[0] - m).exp()
    w = one[2] * first[..., None] + two[2] * second[..., None]
    return m, one[1] * first + two[1] * second, w


def prefixes(scores: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """(m, u, w) of every prefix: scores [B, T, H], v [B, T, H, K]. In log T rounds, each of which
    doubles how far back a token has looked (Hillis and Steele, 1986)."""
    state: tuple[Tensor, ...] = (scores, torch.ones_like(scores), v)
    back = 1
    while back < scores.shape[1]:
        before = tuple(part[:, :-back] for part in state)
        met = combine(before, tuple(part[:, back:] for part in state))
        state = tuple(
            torch.cat([part[:, :back], new], 1) for part, new in zip(state, met, strict=True)
        )
        back *= 2
    return state


def cost(config: Config, site: Site) -> Cost:
    width = site.width // config.heads
    return (
        Cost(params=site.width)
        + linear(site.width, site.width, 1, bias=False)
        + linear(site.width, 2 * site.width, site.tokens, bias=False)
        + product(1, width, 1, site.tokens * config.heads)
        + linear(site.width, site.width, site.tokens, bias=False)
        + Cost(state=2 * config.heads + site.width)
    )


BLOCK = Block(
    name="aaren",
    symbol="a",
    kind=Kind.MIXER,
    causal=Causal.ALWAYS,
    source="Feng et al., 2024",
    config=Config,
    module=Aaren,
    cost=cost,
    samples=(
        (Config(heads=4), Site(width=16, grid=(4, 4))),
        (Config(heads=2), Site(width=6, grid=(9,), causal=True)),
    ),
)
