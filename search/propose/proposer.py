"""`Proposer`: what a sampler is to the search loop.

It is rebuilt from the log whenever a search goes on, so it may hold nothing that `tell` cannot
give it again: a proposal depends on what was told and on `number`, not on how often it was asked.
It must not know where trials are kept. Next: `random.py`, the simplest; `nsga2.py`, `tpe.py`,
`exact.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..objective import Metric
from ..space import Space
from ..spec import Scalar
from ..trial import Trial


class Proposer(Protocol):
    """Proposes genes, and is told what became of them."""

    def ask(self, number: int, draw: int) -> dict[str, Scalar]:
        """Genes for trial `number`; `draw` counts the proposals for it that were already known."""

    def tell(self, trial: Trial) -> None:
        """The newest state of a trial, in the order of the log: waiting or running (others should
        look elsewhere), with values as soon as an early rung has measured some, or ended."""


@dataclass(frozen=True)
class Sampler:
    """A named way to make a proposer: `(space, objectives, seed) -> Proposer`."""

    name: str
    make: Callable[[Space, Sequence[Metric], int], Proposer]
