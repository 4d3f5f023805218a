"""Where tokens stand, as blocks ask: distances on a grid, slopes of heads, rotations.

It must not know what is done with them. Next: `attention.py`.

Shapes: T tokens, H heads, K head width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def distances(grid: tuple[int, ...], far: bool = False) -> Tensor:
    """[T, T]: how many tokens apart two tokens of a grid are, read row by row: down plus across
    (Manhattan), or the longer of both if `far` (Chebyshev).

    >>> distances((3,)).tolist()
    [[0, 1, 2], [1, 0, 1], [2, 1, 0]]
    """
    axes = torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")
    apart = torch.stack([(x.flatten()[:, None] - x.flatten()).abs() for x in axes])
    return apart.amax(0) if far else apart.sum(0)


def slopes(heads: int) -> list[float]:
    """One falling slope a head: 2^(-8 (h + 1) / H) for a power of two, else interpolated as in
    "Train Short, Test Long" (ALiBi, Press et al., 2022).

    >>> slopes(4)
    [0.25, 0.0625, 0.015625, 0.00390625]
    """
    power = 2 ** math.floor(math.log2(heads))
    found = [2.0 ** (-8 * (h + 1) / power) for h in range(power)]
    if power < heads:
        found += slopes(2 * power)[0::2][: heads - power]
    return found


def angles(at: Tensor, width: int) -> Tensor:
    """[T, K / 2]: by which angle each pair of channels is turned at the positions `at` [T], as in
    "RoFormer" (Su et al., 2021). The width is even."""
    rates = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64, device=at.device) / width)
    return at[:, None].double() * rates


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """x [..., T, K], its channels in adjacent pairs, turned by `turn` [T, K / 2]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = turn.cos().to(x.dtype), turn.sin().to(x.dtype)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)
