"""`Block`: the contract of everything that stands in a layer, [B, T, D] -> [B, T, D].

B batch, T tokens, D width. A block is a row: a Config (a frozen dataclass without defaults, so
that a spec says everything), a module, what it costs, and samples that the tests run. It must not
know what a layer is. Next: `pool.py`, the simplest; `../model.py` puts them together.

    module(x, real=None)       x [B, T, D]; `real` [B, T] is False where a token is padding: what
                               stands there changes no other token
    module.begin(batch)        the state before the first token (blocks that can be causal)
    module.step(x, state)      the next token, x [B, D] -> y [B, D] and the state behind it
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, get_type_hints

from torch import Tensor, nn

from ..errors import SpecError
from ..spec import Scalar
from .cost import Cost

State = Any
"""What a block keeps between tokens: a tensor, or a tuple of tensors."""


@dataclass(frozen=True)
class Site:
    """Where a block stands: tokens of `width` numbers that lie on `grid`, row by row: (down,
    across) for images, (length,) for sequences. At a `causal` site no token may see a later one.
    `layer` of `layers`, from 0, is for what changes with depth."""

    width: int
    grid: tuple[int, ...]
    causal: bool = False
    layer: int = 0
    layers: int = 1

    @property
    def tokens(self) -> int:
        return math.prod(self.grid)

    def head_width(self, heads: int, *, even: bool = False) -> int:
        """The width of one of `heads`. Raises ValueError if there is none, or it is not even."""
        if self.width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {self.width}")
        if even and self.width // heads % 2:
            raise ValueError(f"rotation wants heads of even width, not {self.width // heads}")
        return self.width // heads


class Causal(StrEnum):
    """Which tokens a block sees: only those before (`ALWAYS`), all (`NEVER`: not for causal
    sites), or as the site asks (`EITHER`)."""

    ALWAYS = "always"
    NEVER = "never"
    EITHER = "either"


class Kind(StrEnum):
    """What a block is for: mixing tokens, the channels of each token by itself, or normalising."""

    MIXER = "mixer"
    CHANNEL = "channel"
    NORM = "norm"


class PerToken(nn.Module):
    """A block that looks at each token by itself: a step is a call, and it keeps nothing."""

    def begin(self, batch: int) -> State:
        return ()

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return self(x.unsqueeze(1)).squeeze(1), state


@dataclass(frozen=True)
class Block:
    """`module(config, site)` makes the block; it raises ValueError, in words for users, where the
    config does not fit the site. `cost(config, site)` is what that costs. `symbol` stands for the
    block in the short form of a hybrid, `source` is the paper."""

    name: str
    symbol: str
    kind: Kind
    causal: Causal
    source: str
    config: type[Any]
    module: Callable[[Any, Site], nn.Module]
    cost: Callable[[Any, Site], Cost]
    samples: tuple[tuple[Any, Site], ...]
    grids: tuple[int, ...] = (1, 2)
    """How many dimensions the grid may have."""

    def cost_at(self, config: Any, site: Site) -> Cost:
        """`cost`, without a state where tokens are never generated one by one."""
        stateless = not site.causal and self.causal != Causal.ALWAYS
        found = self.cost(config, site)
        return replace(found, state=0) if stateless else found

    def make(self, settings: Mapping[str, Scalar], site: Site, field: str) -> nn.Module:
        """The module for these settings. Raises SpecError, naming the field, unless they are
        exactly those of the config, of its types, and fit the site."""
        return self.module_at(self.configured(settings, field), site, field)

    def module_at(self, config: Any, site: Site, field: str) -> nn.Module:
        """The module. Raises SpecError, naming the field, where the config does not fit the
        site."""
        if site.causal and self.causal == Causal.NEVER:
            raise SpecError(f"{self.name} sees later tokens; the site is causal", field)
        if len(site.grid) not in self.grids:
            wanted = " or ".join(map(str, self.grids))
            had = len(site.grid)
            raise SpecError(f"{self.name} wants a grid of {wanted} dimensions, not {had}", field)
        try:
            return self.module(config, site)
        except ValueError as error:
            raise SpecError(str(error), field) from error

    def configured(self, settings: Mapping[str, Scalar], field: str) -> Any:
        """The Config of these settings. Raises SpecError, naming the field."""
        return configured(self.name, self.config, settings, field)


def configured(name: str, config: type[Any], settings: Mapping[str, Scalar], field: str) -> Any:
    """`config(**settings)`. Raises SpecError, naming the field, unless the settings are exactly its
    fields, of their types, and numbers are positive."""
    hints = get_type_hints(config)
    known = {f.name: hints[f.name] for f in fields(config)}
    if set(settings) != set(known):
        wanted, given = ", ".join(sorted(known)), ", ".join(sorted(settings))
        raise SpecError(f"{name} has the settings {wanted}; got {given}", field)
    for key, value in settings.items():
        if type(value) is not known[key]:
            raise SpecError(f"wanted {known[key].__name__}, got {value!r}", f"{field}.{key}")
        if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
            raise SpecError(f"wanted a positive number, got {value!r}", f"{field}.{key}")
    return config(**settings)
