"""The exact front of what each choice of a knob is worth by itself.

As Puzzle (Bercovich et al., 2024) searches: first the largest setting, then each that differs from
it in one knob; the smallest, where the largest is not allowed. What a choice changes is fitted to
all that is known, as if it added up over knobs, and the exact front of the sums is proposed, member
by member; then it is fitted again. Where things do add up nothing is left to chance; where they do
not the front moves with what is measured.
It must not know the log. Next: `../additive.py`, which finds the front.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import chain, islice, pairwise

import numpy as np
from numpy.typing import NDArray

from ..additive import Choice, exact_front
from ..errors import SpecError
from ..hypervolume import contributions
from ..objective import Metric
from ..ranking import EDGE, costs, normalised
from ..space import OneOf, Space
from ..spec import Scalar
from ..told import stopped_on
from ..trial import Trial, TrialState
from .places import Genes, key_of, place_of
from .proposer import Sampler

FINE = 10**6  # costs and scores are counted in so many steps from the least to the most there is
NOISE = 1e-4  # of that range: what differs by less is the same
DRAWS = 1000  # uniform draws for one proposal, while they are known

Floats = NDArray[np.float64]


class Exact:
    """A proposer for spaces whose knobs are always on and free of rules. Raises SpecError for
    others.

    The front is that of the first metric against the second; with more metrics the others take
    turns as the second. Only what succeeded is fitted; a choice with which nothing did is on no
    front.
    """

    def __init__(self, space: Space, metrics: Sequence[Metric], seed: int) -> None:
        self._knobs = free_knobs(space)
        self._space, self._metrics, self._seed = space, metrics, seed
        self._known: set[str] = set()
        self._fronts: dict[int, list[dict[str, Scalar]]] = {}  # of what is told so far
        self._largest = space.canonical({gene.name: gene.choices[-1] for gene in space.genes})
        self._base = self._largest  # what the first ones differ from
        # of least squares: the sums of the rows' products with themselves and with the values
        width = 1 + sum(len(gene.choices) for gene in self._knobs)
        self._gram = np.zeros((width, width))
        self._right = np.zeros((width, len(metrics)))

    def ask(self, number: int, draw: int) -> dict[str, Scalar]:
        ways = self._proposals(number)
        untold = (genes for genes in ways if key_of(genes) not in self._known)
        return next(islice(untold, draw, None), self._largest)

    def tell(self, trial: Trial) -> None:
        if not trial.params:
            return
        self._known.add(key_of(trial.params))
        refused = trial.state is TrialState.PRUNED and stopped_on(trial) is None
        if refused and key_of(trial.params) == key_of(self._largest):
            smallest = {gene.name: gene.choices[0] for gene in self._space.genes}
            self._base = self._space.canonical(smallest)
        values = costs(trial, self._metrics)
        if trial.state is TrialState.SUCCEEDED and values is not None:
            row = self._row(trial.params)
            self._gram += np.outer(row, row)
            self._right += np.outer(row, values)
            self._fronts.clear()

    def front(self, second: int) -> list[dict[str, Scalar]]:
        """The settings on the predicted front of the first metric and metric number `second`, from
        the one that adds most to it; found once until more is told."""
        if second not in self._fronts:
            self._fronts[second] = self._front(second)
        return self._fronts[second]

    def _front(self, second: int) -> list[dict[str, Scalar]]:
        seen = self._seen()
        if not all(seen):
            return []
        effects = self._effects()
        prices = _whole(effects[second], seen) if second else [[0] * len(at) for at in seen]
        scores = _whole(effects[0], seen)
        members = _distinct(exact_front(prices, scores), prices, scores)
        points = [(float(_total(prices, m)), float(_total(scores, m))) for m in members]
        shares = contributions(normalised(points), [EDGE] * 2)
        best_first = sorted(range(len(members)), key=lambda at: -shares[at])
        return [self._setting(members[at], seen) for at in best_first]

    def _proposals(self, number: int) -> Iterator[dict[str, Scalar]]:
        """Each knob by itself; the front; what differs from that in one knob; anything."""
        yield self._largest
        yield self._base
        yield from self._space.neighbours(self._base)
        front = self.front(1 + number % (len(self._metrics) - 1) if len(self._metrics) > 1 else 0)
        yield from front
        for genes in front:
            yield from self._space.neighbours(genes)
        rng = random.Random(f"{self._seed}|{number}")
        for _ in range(DRAWS):
            yield self._space.sample(rng)

    def _row(self, genes: Genes) -> Floats:
        """1, and per knob a 1 for the choice."""
        places = [(place_of(gene, genes[gene.name]), gene) for gene in self._knobs]
        ones = ([float(at == place) for at in range(len(g.choices))] for place, g in places)
        return np.array([1.0, *chain(*ones)])

    def _effects(self) -> list[list[list[float]]]:
        """[metric][knob][choice]: what each choice adds, by least squares."""
        fitted = np.linalg.lstsq(self._gram, self._right, rcond=1e-10)[0]
        ends = np.cumsum([1, *(len(gene.choices) for gene in self._knobs)])
        return [[list(of[a:b]) for a, b in pairwise(ends)] for of in fitted.T]

    def _seen(self) -> list[list[int]]:
        """Per knob the places of the choices with which something succeeded."""
        ends = np.cumsum([1, *(len(gene.choices) for gene in self._knobs)])
        counts = self._gram.diagonal()
        return [[at - a for at in range(a, b) if counts[at]] for a, b in pairwise(ends)]

    def _setting(self, choice: Choice, seen: Sequence[Sequence[int]]) -> dict[str, Scalar]:
        chosen = {
            gene.name: gene.choices[places[at]]
            for gene, places, at in zip(self._knobs, seen, choice, strict=True)
        }
        return self._space.canonical({**self._largest, **chosen})


def free_knobs(space: Space) -> list[OneOf]:
    """The knobs that have a choice and are on whatever the others are. Raises SpecError for a knob
    that is on only sometimes, and for rules: the exact front of sums knows neither."""
    said = f"'exact' wants knobs that are always on and free of rules; in {space.name}"
    if space.rules:
        raise SpecError(f"{said} it holds that {space.rules[0].says}", "sampler")
    always: dict[str, OneOf] = {}
    never: set[str] = set()
    for gene in space.genes:
        # per condition, whether each value of the knob it is about meets it
        met = [
            [repr(choice) in map(repr, values) for choice in always[name].choices]
            for name, values in (gene.when or {}).items()
            if name in always
        ]
        if never & set(gene.when or ()) or not all(map(any, met)):
            never.add(gene.name)
        elif all(map(all, met)):
            always[gene.name] = gene
        else:
            others = " and ".join(gene.when or ())
            raise SpecError(
                f"{said} {gene.name} depends on {others}: keep that to one value, or take "
                "another sampler",
                "sampler",
            )
    return [gene for gene in always.values() if len(gene.choices) > 1]


def _whole(effects: Sequence[Sequence[float]], seen: Sequence[Sequence[int]]) -> list[list[int]]:
    """Those of the choices that were seen, in whole steps from 0 for the least of a knob."""
    table = [[of[at] for at in places] for of, places in zip(effects, seen, strict=True)]
    span = sum(max(of) - min(of) for of in table) or 1.0
    return [[round((x - min(of)) / span * FINE) for x in of] for of in table]


def _distinct(
    members: Sequence[Choice], prices: Sequence[Sequence[int]], scores: Sequence[Sequence[int]]
) -> list[Choice]:
    """Without those that are on the front by the noise of the fit: as dear as the next that is
    kept, which is better, or no better than the one before that is kept. Steps that are small each
    and together are not leave some."""
    least, dearest_first, kept = NOISE * FINE, list[Choice](), list[Choice]()
    for choice in reversed(members):
        dearer = dearest_first[-1:]
        if not dearer or _total(prices, dearer[0]) - _total(prices, choice) >= least:
            dearest_first.append(choice)
    for choice in reversed(dearest_first):
        if not kept or _total(scores, kept[-1]) - _total(scores, choice) > least:
            kept.append(choice)
    return kept


def _total(table: Sequence[Sequence[int]], choice: Choice) -> int:
    return sum(of[at] for of, at in zip(table, choice, strict=True))


SAMPLER = Sampler("exact", Exact)
