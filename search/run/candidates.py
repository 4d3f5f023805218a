"""Which candidate comes next: the user's own first, then the proposer's, unless its architecture
was there before.

Samplers propose the same genes again on discrete spaces, and different genes may mean the same
architecture; neither is evaluated twice. It must not know how candidates are evaluated.
Next: `../propose/proposer.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from ..errors import SpecError
from ..evaluate.failure import reason
from ..objective import METRICS
from ..propose import Sampler
from ..search_spec import SearchSpec
from ..space import Signature, Space
from ..spec import ArchSpec, Scalar
from ..spelling import canonical
from ..trial import Trial

DRAWS = 4  # proposals for one trial before their neighbours are tried
ENUMERABLE = 4096  # spaces up to this size are searched to the last architecture
CHANCES = 1000  # uniform draws from a larger space before it counts as exhausted

T = TypeVar("T")


class Candidates:
    """The architectures of one search, each once. `count` is how many trials there were. What a
    space or a sampler of another package raises comes out as SpecError that names it; so does a
    baseline that is not made for the task."""

    def __init__(self, space: Space, signature: Signature, sampler: Sampler, spec: SearchSpec):
        self._space = space
        self._signature = signature
        self._of_space = f"the space {space.name!r}"
        self._of_sampler = f"the sampler {sampler.name!r}"
        metrics = [METRICS[name] for name in spec.objectives]
        self._proposer = _call(self._of_sampler, lambda: sampler.make(space, metrics, spec.seed))
        self._seed = spec.seed
        self._baselines = _fitting(spec.enqueued(), signature)
        self._known: set[str] = set()  # fingerprints
        self._misfit = ""
        self.count = 0

    def tell(self, trial: Trial) -> None:
        """A trial as it is now. Raises SpecError if it is not of this space."""
        new = trial.number >= self.count
        if new:
            if trial.params and self._canonical(trial.params) != dict(trial.params):
                raise SpecError(f"trial {trial.number} is not of the space {self._space.name!r}")
            self._known.add(canonical(trial.architecture).fingerprint())
            self.count = trial.number + 1
        if trial.params:  # a baseline has no genes to learn from
            _call(self._of_sampler, lambda: self._proposer.tell(trial))

    def propose(self) -> Trial | None:
        """The next trial, or None if the space holds no further architecture. Raises SpecError if
        it holds none at all for this task."""
        if self.count < len(self._baselines):
            return Trial(self.count, {}, self._baselines[self.count])
        for proposed in self._proposals():
            genes = self._canonical(proposed)
            architecture = self._decode(genes)
            if architecture and architecture.fingerprint() not in self._known:
                return Trial(self.count, genes, architecture)
        if not self.count:
            raise SpecError(f"{self._of_space} holds nothing for this task: {self._misfit}")
        return None

    def _proposals(self) -> Iterator[Mapping[str, Scalar]]:
        """First what the sampler asks for, then what differs from that in one gene (samplers that
        have converged ask for the same again and again), then anything."""
        rng = random.Random(f"{self._seed}|{self.count}")
        asked = []
        for draw in range(DRAWS):
            asked.append(_call(self._of_sampler, partial(self._proposer.ask, self.count, draw)))
            yield asked[-1]
        for genes in asked:
            near = _call(self._of_space, partial(self._space.neighbours, genes))
            rng.shuffle(near)
            yield from near
        if self._space.combinations() > ENUMERABLE:
            for _ in range(CHANCES):
                yield _call(self._of_space, partial(self._space.sample, rng))
            return
        every = list(self._space.all())
        rng.shuffle(every)
        yield from every

    def _canonical(self, genes: Mapping[str, Scalar]) -> dict[str, Scalar]:
        return _call(self._of_space, lambda: self._space.canonical(genes))

    def _decode(self, genes: Mapping[str, Scalar]) -> ArchSpec | None:
        """None where a space's genes do not fit together, or not for this task: a rule is broken,
        or it raised SpecError."""
        if broken := _call(self._of_space, lambda: self._space.broken(genes)):
            self._misfit = broken[0]
            return None
        try:
            made = self._space.decode(genes, self._signature)
        except SpecError as error:
            self._misfit = str(error)
            return None
        except Exception as error:
            raise SpecError(f"{self._of_space} fails: {reason(error)}") from error
        if not isinstance(made, ArchSpec):
            raise SpecError(f"{self._of_space} made a {type(made).__name__}, not an ArchSpec")
        return canonical(made)


def _fitting(baselines: Sequence[ArchSpec], signature: Signature) -> list[ArchSpec]:
    """Each once, as a search spells it."""
    made = {}
    for at, baseline in enumerate(baselines):
        if baseline.signature != signature:
            said = f"it is made for {baseline.signature}; the task has {signature}"
            raise SpecError(said, f"baselines[{at}]")
        spelled = canonical(baseline)
        made[spelled.fingerprint()] = spelled
    return list(made.values())


def _call(whose: str, what: Callable[[], T]) -> T:
    """The result; whatever is raised becomes a SpecError that says whose fault it is."""
    try:
        return what()
    except SpecError:
        raise
    except Exception as error:
        raise SpecError(f"{whose} fails: {reason(error)}") from error
