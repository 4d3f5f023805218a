"""A channel mixer with a gate: two maps up, their product, one down.

"GLU Variants Improve Transformer" (Shazeer, 2020): with "silu" it is SwiGLU, with "none" the SGLU
of "TransNormerLLM" (Qin et al., 2023). No biases.

    out(activation(gate(x)) * up(x))

Shapes: B batch, T tokens, D width, F hidden width. Next: `low_rank_mlp.py`.
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


class GatedMlp(PerToken):
    """[B, T, D] -> [B, T, D]"""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        self.gate = nn.Linear(site.width, config.hidden, bias=False)
        self.up = nn.Linear(site.width, config.hidden, bias=False)
        self.activation = activation(config.activation)
        self.down = nn.Linear(config.hidden, site.width, bias=False)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        mixed: Tensor = self.down(self.activation(self.gate(x)) * self.up(x))
        return mixed


def cost(config: Config, site: Site) -> Cost:
    up = linear(site.width, config.hidden, site.tokens, bias=False)
    down = linear(config.hidden, site.width, site.tokens, bias=False)
    return up + up + down + Cost(params=ACTIVATIONS[config.activation][1])


BLOCK = Block(
    name="gated_mlp",
    symbol="=",
    kind=Kind.CHANNEL,
    causal=Causal.EITHER,
    source="Shazeer, 2020",
    config=Config,
    module=GatedMlp,
    cost=cost,
    samples=(
        (Config(hidden=32, activation="silu"), Site(width=16, grid=(4, 4))),
        (Config(hidden=9, activation="none"), Site(width=6, grid=(9,), causal=True)),
    ),
)
