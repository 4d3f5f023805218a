"""Softmax attention, in several heads: every token to every token, or to those of a window.

"Attention Is All You Need" (Vaswani et al., 2017); heads may share keys and values ("GQA", Ainslie
et al., 2023); positions by rotation ("RoFormer", Su et al., 2021), by a penalty on distance
("ALiBi", Press et al., 2022) or not at all; layers of different `span` make a mixed-span model
("MASFormer", Zhang et al., 2023). Written as its definition: fusing it is the work of our compiler
(`fuse_attention`), and what a search measures is the rewritten graph.

Shapes: B batch, T tokens, D width, H heads, G key heads, K head width, S tokens kept.
Next: `linear_attention.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .block import Block, Causal, Kind, Site, State
from .cost import Cost, linear, product
from .grids import laid
from .normalise import never
from .positions import angles, distances, rotate, slopes

POSITIONS = ("none", "rotary", "alibi")


@dataclass(frozen=True)
class Config:
    heads: int
    kv_heads: int
    """Heads of keys and values, each read by `heads / kv_heads` heads."""
    head_width: int
    positions: str
    """"none", "rotary" or "alibi"."""
    span: int
    """How near a token must be to be seen: less than this many tokens away (on an image, in each
    direction). One that is as long as the input sees everything."""


class Attention(nn.Module):
    """[B, T, D] -> [B, T, D]"""

    hidden: Tensor | None
    apart: Tensor | None

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        if config.positions not in POSITIONS:
            known = ", ".join(POSITIONS)
            raise ValueError(f"positions are one of {known}, not {config.positions!r}")
        width = config.head_width
        if config.positions == "rotary" and width % 2:
            raise ValueError(f"rotation wants heads of even width, not {width}")
        if config.heads % config.kv_heads:
            raise ValueError(f"{config.kv_heads} heads of keys do not divide {config.heads} heads")
        self.config, self.site, self.scale = config, site, width**-0.5
        # one by one: to merge them is the compiler's work, and narrower ones are slices
        self.q = nn.Linear(site.width, config.heads * width)
        self.k = nn.Linear(site.width, config.kv_heads * width)
        self.v = nn.Linear(site.width, config.kv_heads * width)
        self.out = nn.Linear(config.heads * width, site.width)
        # whole numbers, which stay what they are whatever the dtype of the module
        alibi = config.positions == "alibi"
        self.register_buffer("apart", distances(laid(site)) if alibi else None, persistent=False)
        self.register_buffer("hidden", self._hidden(), persistent=False)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        q, k, v = self._heads(x, torch.arange(x.shape[1], device=x.device))  # [B, H or G, T, K]
        scores = q @ self._shared(k).transpose(-1, -2) * self.scale  # [B, H, T, T]
        tokens = x.shape[1]
        if self.apart is not None:
            scores = scores - self._slopes(x) * self.apart[:tokens, :tokens]
        if self.hidden is not None:
            scores = scores.masked_fill(self.hidden[:tokens, :tokens], never(x))
        if real is not None:
            scores = scores.masked_fill(~real[:, None, None, :], never(x))
        return self._out(F.softmax(scores, -1) @ self._shared(v))

    def _hidden(self) -> Tensor | None:
        """[T, T], what is not to be seen, if anything is not."""
        site, span = self.site, self.config.span
        if span >= max(laid(site)) and not (site.causal and site.tokens > 1):
            return None
        hidden = distances(laid(site), far=True) >= span
        return hidden | ~torch.ones_like(hidden).tril() if site.causal else hidden

    def begin(self, batch: int) -> State:
        """Keys and values seen, none [B, G, 0, K], and how many tokens there were."""
        width = self.config.head_width
        none = self.out.weight.new_zeros(batch, self.config.kv_heads, 0, width)
        return none, none, torch.zeros(1, dtype=torch.long, device=none.device)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        *seen, at = state
        q, *new = self._heads(x.unsqueeze(1), at)
        kept = [torch.cat(kv, 2)[:, :, -self.config.span :] for kv in zip(seen, new, strict=True)]
        k, v = (self._shared(part) for part in kept)  # [B, H, S, K]
        scores = q @ k.transpose(-1, -2) * self.scale  # [B, H, 1, S]
        if self.config.positions == "alibi":
            ago = torch.arange(k.shape[2] - 1, -1, -1, device=x.device)
            scores = scores - self._slopes(x) * ago
        return self._out(F.softmax(scores, -1) @ v).squeeze(1), (*kept, at + 1)

    def _heads(self, x: Tensor, at: Tensor) -> tuple[Tensor, ...]:
        """q [B, H, T, K], k and v [B, G, T, K] of tokens at the positions `at` [T]."""
        width = self.config.head_width
        parts = (self.q(x), self.k(x), self.v(x))
        q, k, v = (part.unflatten(-1, (-1, width)).transpose(1, 2) for part in parts)
        if self.config.positions == "rotary":
            turn = angles(at, width)
            q, k = rotate(q, turn), rotate(k, turn)
        return q, k, v

    def _shared(self, x: Tensor) -> Tensor:
        """[B, G, T, K] -> [B, H, T, K]"""
        each = self.config.heads // self.config.kv_heads
        return x if each == 1 else x.repeat_interleave(each, 1)

    def _out(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return mixed

    def _slopes(self, x: Tensor) -> Tensor:
        """[H, 1, 1]: what a step of distance costs."""
        return x.new_tensor(slopes(self.config.heads))[:, None, None]


def cost(config: Config, site: Site) -> Cost:
    width, tokens = config.head_width, site.tokens
    inner, keys = config.heads * width, config.kv_heads * width
    return (
        linear(site.width, inner, tokens)
        + linear(site.width, keys, tokens)
        + linear(site.width, keys, tokens)
        + product(tokens, width, tokens, times=config.heads)
        + product(tokens, tokens, width, times=config.heads)
        + linear(inner, site.width, tokens)
        + Cost(state=2 * keys * min(tokens, config.span))
    )


BLOCK = Block(
    name="attention",
    symbol="*",
    kind=Kind.MIXER,
    causal=Causal.EITHER,
    source="Vaswani et al., 2017",
    config=Config,
    module=Attention,
    cost=cost,
    samples=(
        (Config(4, 4, 4, "none", 16), Site(16, (4, 4))),
        (Config(1, 1, 6, "none", 2), Site(6, (2, 3))),
        (Config(4, 2, 6, "rotary", 9), Site(16, (9,), causal=True)),
        (Config(3, 1, 2, "alibi", 4), Site(6, (9,), causal=True)),
        (Config(2, 1, 4, "alibi", 3), Site(8, (2, 3))),
        (Config(2, 2, 3, "alibi", 2), Site(8, (2, 3), causal=True)),
    ),
)
