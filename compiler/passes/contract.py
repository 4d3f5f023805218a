"""What a pass is.

A pass is a function from a graph, edited in place, and the facts about it to an `Outcome`: how
many sites it saw, how many it rewrote and why it left the others. It must be exact in real
arithmetic, gradients included; what it cannot prove it declines. It must not time, print, copy or
check anything: that is done from outside (`../pipeline.py`, `../instruments.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import fx

from ..facts import Facts
from ..options import Options
from ..report import Decline


class Derivation(Protocol):
    """Something that is known only at run time, derived from the inputs once per call.

    A pass that returns one has edited the graph so that it is right only where the derivation
    holds; the graph as it was stays beside it as the other choice (see `../dispatch.py`).
    """

    @property
    def name(self) -> str: ...

    def derive(self, inputs: Sequence[object]) -> tuple[torch.Tensor, ...] | None:
        """The values of the inputs that the edited graph has beyond the original ones, in order;
        None where the edited graph may not be used for these inputs. Runs outside autograd and
        must not change the inputs."""


@dataclass
class Outcome:
    """What a pass did to one graph. `prepared_bytes` counts values that it keeps between calls."""

    sites: int = 0
    rewritten: int = 0
    declined: list[Decline] = field(default_factory=list)
    derivation: Derivation | None = None
    prepared_bytes: int = 0


RunPass = Callable[[fx.Graph, Facts, Options], Outcome]


@dataclass(frozen=True)
class Pass:
    """A row of the pipeline. `run` is right whatever the inputs are; `speculate`, where there is
    one, may return a derivation and runs in its place wherever the graph can be dispatched.
    `wanted` says by the options whether the pass runs at all."""

    name: str
    run: RunPass | None = None
    speculate: RunPass | None = None
    wanted: Callable[[Options], bool] = lambda options: True
