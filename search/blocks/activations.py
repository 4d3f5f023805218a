"""What stands between the linear maps of a channel mixer, by name.

PolyReLU and PolyNorm are those of "Polynomial Composition Activations" (PolyCom, Zhuo et al.,
2024), of order three:

    poly_relu(x) = a0 + a1 r + a2 r^2 + a3 r^3          r = relu(x)
    poly_norm(x) = a0 + a1 n(x) + a2 n(x^2) + a3 n(x^3)  n(z) = z / sqrt(mean(z^2) + eps)

n is over the whole last axis, so PolyNorm of a slice is not a slice of PolyNorm. It must not know
where it stands. Next: `mlp.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-6


class PolyReLU(nn.Module):
    """Of each number by itself; four numbers are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.full((3,), 1 / 3))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        r = F.relu(x)
        one, two, three = self.weights
        y: Tensor = self.bias + r * (one + r * (two + r * three))
        return y


class PolyNorm(nn.Module):
    """Each power normalised over the last axis; four numbers are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.full((3,), 1 / 3))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        one, two, three = self.weights
        n1, n2, n3 = (F.rms_norm(z, z.shape[-1:], eps=EPS) for z in (x, x * x, x * x * x))
        y: Tensor = self.bias + one * n1 + two * n2 + three * n3
        return y


ACTIVATIONS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    # name: how it is made, and how many numbers of it are trained
    "gelu": (nn.GELU, 0),
    "relu": (nn.ReLU, 0),
    "silu": (nn.SiLU, 0),
    "none": (nn.Identity, 0),
    "poly_relu": (PolyReLU, 4),
    "poly_norm": (PolyNorm, 4),
}


def activation(name: str) -> nn.Module:
    """Raises ValueError for a name that is not known."""
    if name not in ACTIVATIONS:
        raise ValueError(f"an activation is one of {', '.join(ACTIVATIONS)}, not {name!r}")
    return ACTIVATIONS[name][0]()
