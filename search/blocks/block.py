"""`Block`: the contract of everything that stands in a layer, [B, T, D] -> [B, T, D].

B batch, T tokens, D width. A block is a row: a Config (a frozen dataclass without defaults, so
that a spec says everything), a module, and samples that the tests run. It must not know what a
layer is. Next: `pool.py`, the simplest; `../model.py` puts them together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from torch import nn

from ..errors import SpecError
from ..spec import Scalar


@dataclass(frozen=True)
class Site:
    """Where a block stands: tokens of `width` numbers that lie on `grid` (down, across), row by
    row."""

    width: int
    grid: tuple[int, int]

    @property
    def tokens(self) -> int:
        return math.prod(self.grid)


@dataclass(frozen=True)
class Block:
    """`module(config, site)` makes the block; it raises ValueError, in words for users, where the
    config does not fit the site."""

    name: str
    config: type[Any]
    module: Callable[[Any, Site], nn.Module]
    samples: tuple[tuple[Any, Site], ...]

    def make(self, settings: Mapping[str, Scalar], site: Site, field: str) -> nn.Module:
        """The module for these settings. Raises SpecError, naming the field, unless they are
        exactly those of the config, of its types, and fit the site."""
        hints = get_type_hints(self.config)
        known = {f.name: hints[f.name] for f in fields(self.config)}
        if set(settings) != set(known):
            wanted, given = ", ".join(sorted(known)), ", ".join(sorted(settings))
            raise SpecError(f"{self.name} has the settings {wanted}; got {given}", field)
        for name, value in settings.items():
            if type(value) is not known[name]:
                kind = known[name].__name__
                raise SpecError(f"wanted {kind}, got {value!r}", f"{field}.{name}")
            if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
                raise SpecError(f"wanted a positive number, got {value!r}", f"{field}.{name}")
        try:
            return self.module(self.config(**settings), site)
        except ValueError as error:
            raise SpecError(str(error), field) from error
