"""A perceptron with one hidden layer on each token by itself: the usual channel mixer.

"Attention Is All You Need" (Vaswani et al., 2017), with any of `activations.py`.

Shapes: B batch, T tokens, D width, F hidden width. Next: `gated_mlp.py`.
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


class Mlp(PerToken):
    """[B, T, D] -> [B, T, D]"""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        self.widen = nn.Linear(site.width, config.hidden)
        self.activation = activation(config.activation)
        self.narrow = nn.Linear(config.hidden, site.width)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        mixed: Tensor = self.narrow(self.activation(self.widen(x)))
        return mixed


def cost(config: Config, site: Site) -> Cost:
    return (
        linear(site.width, config.hidden, site.tokens)
        + Cost(params=ACTIVATIONS[config.activation][1])
        + linear(config.hidden, site.width, site.tokens)
    )


BLOCK = Block(
    name="mlp",
    symbol="-",
    kind=Kind.CHANNEL,
    causal=Causal.EITHER,
    source="Vaswani et al., 2017",
    config=Config,
    module=Mlp,
    cost=cost,
    samples=(
        (Config(hidden=32, activation="gelu"), Site(width=16, grid=(4, 4))),
        (Config(hidden=9, activation="poly_relu"), Site(width=6, grid=(2, 3))),
        (Config(hidden=12, activation="poly_norm"), Site(width=6, grid=(9,), causal=True)),
    ),
)
