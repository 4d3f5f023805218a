"""A perceptron with one hidden layer on each token by itself: the usual channel mixer.

"Attention Is All You Need" (Vaswani et al., 2017), with GELU in the place of ReLU.

Shapes: B batch, T tokens, D width, R = ratio * D. Next: `block.py`, the contract.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from .block import Block, Site


@dataclass(frozen=True)
class Config:
    ratio: int
    """Hidden width, in widths."""


class Mlp(nn.Module):
    """[B, T, D] -> [B, T, D]"""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        self.widen = nn.Linear(site.width, config.ratio * site.width)
        self.narrow = nn.Linear(config.ratio * site.width, site.width)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.narrow(F.gelu(self.widen(x)))
        return mixed


BLOCK = Block(
    name="mlp",
    config=Config,
    module=Mlp,
    samples=(
        (Config(ratio=2), Site(width=16, grid=(4, 4))),
        (Config(ratio=1), Site(width=6, grid=(2, 3))),
    ),
)
