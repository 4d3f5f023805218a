"""Which candidate comes next: the proposer's, unless its architecture was there before.

Samplers propose the same genes again on discrete spaces, and different genes may mean the same
architecture; neither is evaluated twice. It must not know how candidates are evaluated.
Next: `../propose/proposer.py`.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping

from ..errors import SpecError
from ..propose import Proposer
from ..space import Signature, Space
from ..spec import ArchSpec, Scalar
from ..trial import Trial

DRAWS = 32  # proposals for one trial before chance decides
ENUMERABLE = 4096  # spaces up to this size are searched to the last architecture
CHANCES = 1000  # uniform draws from a larger space before it counts as exhausted


class Candidates:
    """The architectures of one search, each once. `count` is how many there were."""

    def __init__(self, space: Space, signature: Signature, proposer: Proposer) -> None:
        self._space = space
        self._signature = signature
        self._proposer = proposer
        self._numbers: dict[str, int] = {}  # fingerprint -> trial

    @property
    def count(self) -> int:
        return len(self._numbers)

    def tell(self, trial: Trial) -> None:
        """A trial as it is now."""
        self._numbers[trial.architecture.fingerprint()] = trial.number
        self._proposer.tell(trial)

    def propose(self) -> Trial | None:
        """The next trial, or None if the space holds no further architecture."""
        for genes in itertools.chain(self._asked(), self._left()):
            genes = self._space.canonical(genes)
            architecture = self._decode(genes)
            if architecture and architecture.fingerprint() not in self._numbers:
                return Trial(self.count, genes, architecture)
        return None

    def _asked(self) -> Iterator[Mapping[str, Scalar]]:
        return (self._proposer.ask(self.count, draw) for draw in range(DRAWS))

    def _left(self) -> Iterator[Mapping[str, Scalar]]:
        rng = random.Random(self.count)
        if self._space.size() > ENUMERABLE:
            return (self._space.sample(rng) for _ in range(CHANCES))
        names = [gene.name for gene in self._space.genes]
        every = list(itertools.product(*(gene.choices for gene in self._space.genes)))
        rng.shuffle(every)
        return (dict(zip(names, choice, strict=True)) for choice in every)

    def _decode(self, genes: Mapping[str, Scalar]) -> ArchSpec | None:
        """None where a space's genes do not fit together for this task."""
        try:
            return self._space.decode(genes, self._signature)
        except SpecError:
            return None
