"""Uniform proposals: the baseline that every sampler must beat.

It must not know what became of anything. Next: `tpe.py`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ..objective import Metric
from ..space import Space
from ..spec import Scalar
from ..trial import Trial
from .proposer import Sampler


@dataclass(frozen=True)
class Random:
    """Genes drawn uniformly, each trial from its own seed."""

    space: Space
    seed: int

    def ask(self, number: int, draw: int) -> dict[str, Scalar]:
        return self.space.sample(random.Random(f"{self.seed}|{number}|{draw}"))

    def tell(self, trial: Trial) -> None:
        pass


def _make(space: Space, metrics: Sequence[Metric], seed: int) -> Random:
    return Random(space, seed)


SAMPLER = Sampler("random", _make)
