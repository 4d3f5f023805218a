"""Tokens laid out on their grid, for blocks that look at neighbours.

Sequences are images one row high; so is an image at a causal site, where its tokens are read row
by row. It must not know what is done with neighbours. Next: `pool.py`.

Shapes: B batch, T tokens, D channels, G x W the grid (G * W = T).
"""

from __future__ import annotations

from torch import Tensor

from .block import Site


def check_odd(size: int, site: Site, what: str) -> None:
    """Raises ValueError where a window of `size` around a token has no middle."""
    if size % 2 == 0 and not site.causal:
        raise ValueError(f"a {what} of {size} has no middle; wanted an odd size")


def window(size: int, site: Site) -> tuple[int, int]:
    """Down and across, how far a window of `size` reaches."""
    return (1, size) if is_row(site) else (size, size)


def margins(size: int, site: Site) -> tuple[int, int, int, int]:
    """What stands left, right, above and below the grid, so that each token has a window."""
    if site.causal:
        return size - 1, 0, 0, 0
    side = size // 2
    return (side, side, 0, 0) if is_row(site) else (side, side, side, side)


def is_row(site: Site) -> bool:
    """Whether tokens lie in one row."""
    return site.causal or len(site.grid) == 1


def laid(site: Site) -> tuple[int, ...]:
    """The grid as tokens lie on it."""
    return (site.tokens,) if is_row(site) else site.grid


def as_image(x: Tensor, site: Site) -> Tensor:
    """[B, T, D] -> [B, D, G, W]"""
    rows = (1, -1) if is_row(site) else (-1, site.grid[1])
    image: Tensor = x.transpose(1, 2).unflatten(2, rows)
    return image


def as_tokens(image: Tensor) -> Tensor:
    """[B, D, G, W] -> [B, T, D]"""
    return image.flatten(2).transpose(1, 2)
