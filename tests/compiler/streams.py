"""Small nets with one residual stream, as Before and Expected of the passes on norms."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from formwright.compiler import Options
from formwright.compiler.testing import assert_rewrites

B, T, D, N, EPS = 2, 5, 8, 12, 1e-6
RMS, CRMS = Options(norm="rms"), Options(norm="crms")


class Weights(nn.Module):
    """The weights that the functions under test are given as their first argument: `w1` and `w2`
    [D, N] write the stream, `r1` and `r2` [N, D] read it, g and b are those of a norm."""

    def __init__(self, function: Callable[..., Any], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.function = function
        sizes = {"w1": (D, N), "w2": (D, N), "r1": (N, D), "r2": (N, D)}
        sizes |= {"c1": (D,), "c2": (D,), "s1": (N,), "g": (D,), "b": (D,), "position": (T, D)}
        generator = torch.Generator().manual_seed(0)
        for name, size in sizes.items():
            value = torch.randn(size, generator=generator, dtype=torch.float64) / 3 + 0.2
            self.register_parameter(name, nn.Parameter(value.to(dtype)))

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def layer(x: torch.Tensor, *affine: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, [D], *(affine or (None, None)), EPS)


def rms(x: torch.Tensor, *affine: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, [D], *(affine or (None,)), EPS)


def centred(x: torch.Tensor, dim: int | None = None) -> torch.Tensor:
    return x - x.mean([x.dim() - 1 if dim is None else dim], keepdim=True)


def inputs(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(B, T, D, dtype=dtype, requires_grad=True)


def assert_becomes(
    run: Any, before: Any, expected: Any, options: Options = RMS, sites: int = 1
) -> None:
    """`assert_rewrites` for functions of weights and x [B, T, D], in float32 and float64."""
    for dtype in (torch.float32, torch.float64):
        nets = Weights(before, dtype), Weights(expected, dtype)
        assert_rewrites(run, *nets, inputs(dtype), options=options, sites=sites, double=False)


def flat(value: Any) -> list[Any]:
    """The values that a function returned."""
    return list(value) if isinstance(value, tuple | list) else [value]


def gradients(values: list[torch.Tensor], leaves: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Of a sum in which each entry of `values` has another weight; zeros where they need none."""
    weights = (torch.linspace(-1, 1, v.numel(), dtype=v.dtype).view_as(v) for v in values)
    loss = torch.stack([(v * w).sum() for v, w in zip(values, weights, strict=True)]).sum()
    return torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
