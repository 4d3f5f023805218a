"""Softmax attention of every token to every token, in several heads.

"Attention Is All You Need" (Vaswani et al., 2017). Written as its definition: fusing it is the
work of our compiler (`fuse_attention`), and what a search measures is the rewritten graph.
Tokens know where they stand from the positions that `../model.py` adds, not from here.

Shapes: B batch, T tokens, D width, H heads, K = D / H head width. Next: `mamba2.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from .block import Block, Site


@dataclass(frozen=True)
class Config:
    heads: int


class Attention(nn.Module):
    """[B, T, D] -> [B, T, D]"""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        if site.width % config.heads:
            raise ValueError(f"{config.heads} heads do not divide a width of {site.width}")
        self.heads = config.heads
        self.scale = (site.width // config.heads) ** -0.5
        self.qkv = nn.Linear(site.width, 3 * site.width)
        self.out = nn.Linear(site.width, site.width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # [B, T, 3, H, K]
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # [B, H, T, K] each
        weights = F.softmax(q @ k.transpose(-1, -2) * self.scale, dim=-1)  # [B, H, T, T]
        mixed: Tensor = self.out((weights @ v).transpose(1, 2).flatten(2))
        return mixed


BLOCK = Block(
    name="attention",
    config=Config,
    module=Attention,
    samples=(
        (Config(heads=4), Site(width=16, grid=(4, 4))),
        (Config(heads=1), Site(width=6, grid=(2, 3))),
    ),
)
