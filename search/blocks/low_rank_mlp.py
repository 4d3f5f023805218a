"""A channel mixer whose matrices are products of two thin ones.

The form that "PELA" (Guo et al., 2024) trains: each W [m, n] is second [m, r] first [r, n], only
the second with a bias. It pays where r (m + n) < m n; `thin` is the rank that keeps one part in
`ratio` of the numbers.

Shapes: B batch, T tokens, D width, F hidden width, r rank. Next: `mlp.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .activations import ACTIVATIONS, activation
from .block import Block, Causal, Kind, PerToken, Site
from .cost import Cost, linear


@dataclass(frozen=True)
class Config:
    hidden: int
    activation: str
    rank: int


def thin(rows: int, columns: int, ratio: float) -> int:
    """The rank at which two factors of [rows, columns] hold 1 / ratio of its numbers.

    >>> thin(768, 768, 2), thin(768, 3072, 2), thin(512, 2048, 1.5)
    (192, 307, 273)
    """
    return int(rows * columns / (ratio * (rows + columns)))


class LowRankMlp(PerToken):
    """[B, T, D] -> [B, T, D]"""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        if config.rank > min(site.width, config.hidden):
            raise ValueError(
                f"a rank of {config.rank} is more than matrices of {site.width} x "
                f"{config.hidden} can have"
            )
        self.widen = _factors(site.width, config.hidden, config.rank)
        self.activation = activation(config.activation)
        self.narrow = _factors(config.hidden, site.width, config.rank)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        mixed: Tensor = self.narrow(self.activation(self.widen(x)))
        return mixed


def _factors(inputs: int, outputs: int, rank: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs))


def cost(config: Config, site: Site) -> Cost:
    tokens, rank = site.tokens, config.rank
    return (
        linear(site.width, rank, tokens, bias=False)
        + linear(rank, config.hidden, tokens)
        + Cost(params=ACTIVATIONS[config.activation][1])
        + linear(config.hidden, rank, tokens, bias=False)
        + linear(rank, site.width, tokens)
    )


BLOCK = Block(
    name="low_rank_mlp",
    symbol="~",
    kind=Kind.CHANNEL,
    causal=Causal.EITHER,
    source="Guo et al., 2024",
    config=Config,
    module=LowRankMlp,
    cost=cost,
    samples=(
        (Config(hidden=32, activation="gelu", rank=4), Site(width=16, grid=(4, 4))),
        (Config(hidden=9, activation="relu", rank=2), Site(width=6, grid=(9,), causal=True)),
    ),
)
