"""PRepBN: a LayerNorm that becomes a BatchNorm while it trains, and an affine map when it is done.

"SLAB" (Guo et al., 2024). Over the first `steps` training calls, lambda falls from 1 to 0:

    training   lambda LN(x) + (1 - lambda) RepBN(x)      RepBN(x) = BN(x) + alpha x
    after      RepBN(x) = scale x + shift                with the running statistics

alpha is one trained number, from 1. Statistics are over the batch and its real tokens. Evaluated
before the schedule has ended, it is not the function that was trained: RepBN alone is.

Shapes: B batch, T tokens, D width. Next: `plain.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..blocks.block import Block, Causal, Kind, PerToken, Site
from ..blocks.cost import Cost

EPS, MOMENTUM = 1e-5, 0.1


@dataclass(frozen=True)
class Config:
    steps: int
    """Training calls until it is a BatchNorm."""


class PRepBN(PerToken):
    """[B, T, D] -> [B, T, D]"""

    mean: Tensor
    variance: Tensor
    calls: Tensor

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        self.steps = config.steps
        self.layer = nn.LayerNorm(site.width, eps=EPS)
        self.weight = nn.Parameter(torch.ones(site.width))
        self.bias = nn.Parameter(torch.zeros(site.width))
        self.alpha = nn.Parameter(torch.ones(1))
        self.register_buffer("mean", torch.zeros(site.width))
        self.register_buffer("variance", torch.ones(site.width))
        self.register_buffer("calls", torch.zeros(1, dtype=torch.long))

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        if not self.training:
            scale, shift = self.fold()
            return x * scale + shift
        left = (1 - self.calls.double() / self.steps).clamp(min=0).to(x.dtype)
        mean, variance, count = self._statistics(x, real)
        with torch.no_grad():
            unbiased = variance * count / (count - 1).clamp(min=1)
            self.mean.lerp_(mean.detach().to(self.mean.dtype), MOMENTUM)
            self.variance.lerp_(unbiased.detach().to(self.variance.dtype), MOMENTUM)
            self.calls.add_(1)
        batch = (x - mean) * torch.rsqrt(variance + EPS) * self.weight + self.bias
        y: Tensor = left * self.layer(x) + (1 - left) * (batch + self.alpha * x)
        return y

    def fold(self) -> tuple[Tensor, Tensor]:
        """Scale and shift [D]: what is left of it after training, for a linear that reads it."""
        each = self.weight * torch.rsqrt(self.variance + EPS)
        return each + self.alpha, self.bias - each * self.mean

    def _statistics(self, x: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and variance [D] over the real tokens, and how many there are."""
        if real is None:
            real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        count = real.sum().to(x.dtype)
        mean = x.masked_fill(~real[..., None], 0).sum((0, 1)) / count.clamp(min=1)
        apart = (x - mean).masked_fill(~real[..., None], 0)
        return mean, (apart * apart).sum((0, 1)) / count.clamp(min=1), count


def folded(norm: PRepBN, linear: nn.Linear) -> nn.Linear:
    """The linear map that does what `norm` and then `linear` do, in evaluation."""
    scale, shift = norm.fold()
    made = nn.Linear(linear.in_features, linear.out_features).to(linear.weight)
    with torch.no_grad():
        made.weight.copy_(linear.weight * scale)
        made.bias.copy_(F.linear(shift, linear.weight, linear.bias))
    return made


def cost(config: Config, site: Site) -> Cost:
    return Cost(params=4 * site.width + 1)


BLOCK = Block(
    name="prepbn",
    symbol="",
    kind=Kind.NORM,
    causal=Causal.EITHER,
    source="Guo et al., 2024",
    config=Config,
    module=PRepBN,
    cost=cost,
    samples=((Config(steps=4), Site(16, (4, 4))), (Config(steps=1), Site(6, (9,), causal=True))),
)
