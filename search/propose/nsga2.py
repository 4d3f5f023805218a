"""Optuna's NSGA-II (Deb et al., 2002) without generations: parents are the best that are known.

Optuna counts generations of finished trials and takes parents from the last full one; with trials
that end when they like, these are stale. Here each child is made of those that are best at the
moment, by Optuna's tournament, uniform crossover and, for choices in an order, a mutation to a
neighbour. It must not know the log. Next: `history.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers.nsgaii import BaseMutation
from optuna.trial import FrozenTrial, create_trial

from ..objective import Metric
from ..space import Space
from ..spec import Scalar
from ..trial import Trial
from .history import History, untold
from .optuna_study import Knobs, quietly
from .places import seed_of
from .proposer import Sampler

STARTUP = 8  # trials that are drawn uniformly before there are parents
PARENTS, SLACK = 16, 32
DRAWS = 16  # children for one proposal, while they are known
FURTHER = 0.5  # the chance to go one step more


class Neighbour(BaseMutation):
    """To the next or the previous choice, or further, each step half as likely."""

    def mutation(
        self,
        param: float,
        rng: np.random.RandomState,
        study: optuna.Study,
        search_space_bounds: NDArray[Any],
    ) -> float:
        first, last = np.ceil(search_space_bounds[0]), np.floor(search_space_bounds[1])
        up = rng.rand() < 0.5
        if param >= last or (not up and param > first):
            return float(max(first, param - rng.geometric(1 - FURTHER)))
        return float(min(last, param + rng.geometric(1 - FURTHER)))


class _Ours(optuna.samplers.NSGAIISampler):
    """Optuna's, with these parents, whatever is in the study."""

    def __init__(
        self, seed: int, parents: list[FrozenTrial], genes: dict[str, BaseDistribution]
    ) -> None:
        super().__init__(seed=seed, mutation=Neighbour(), population_size=max(2, len(parents)))
        self._parents, self._genes = parents, genes

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._genes

    def get_trial_generation(self, study: optuna.Study, trial: FrozenTrial) -> int:
        return 1

    def get_parent_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        return self._parents


class Nsga2:
    """A proposer that breeds."""

    def __init__(self, space: Space, metrics: Sequence[Metric], seed: int) -> None:
        self._metrics = metrics
        self._seed = seed
        self._knobs = Knobs(space, ordered=True)
        self._history = History(metrics, best=PARENTS, rest=0, slack=SLACK)
        self._parents: list[FrozenTrial] | None = None
        self._made: dict[int, tuple[Trial, FrozenTrial]] = {}  # place -> who stood there

    def ask(self, number: int, draw: int) -> dict[str, Scalar]:
        with quietly():
            return untold(self._draws(seed_of(self._seed, number, draw)), self._history)

    def tell(self, trial: Trial) -> None:
        self._history.tell(trial)
        self._parents = None

    def parents(self) -> list[FrozenTrial]:
        """The best; none before enough are known."""
        ranked = [t for t in self._history.ranked() if _measured(t, self._metrics)]
        if len(ranked) < STARTUP:
            return []
        with quietly():
            return [self._at(place, trial) for place, trial in enumerate(ranked[:PARENTS], 1)]

    def _draws(self, seed: int) -> Iterator[dict[str, Scalar]]:
        if self._parents is None:
            self._parents = self.parents()
        genes = self._knobs.distributions
        study = optuna.create_study(
            directions=[metric.direction.value for metric in self._metrics],
            sampler=_Ours(seed, self._parents, genes),
        )
        for _ in range(DRAWS):
            yield self._knobs.genes(study.ask(genes).params)

    def _at(self, place: int, trial: Trial) -> FrozenTrial:
        """Made once for as long as the trial stands there."""
        if place not in self._made or self._made[place][0] is not trial:
            self._made[place] = trial, self._frozen(trial, place)
        return self._made[place][1]

    def _frozen(self, trial: Trial, place: int) -> FrozenTrial:
        """Optuna's tournament knows domination only, and parents hardly dominate each other; that
        of NSGA-II also asks who stands apart. The place knows it, and who got how far on a ladder;
        it is told as the amount by which a constraint is broken."""
        return create_trial(
            params=self._knobs.places(trial.params),
            distributions=self._knobs.distributions,
            values=[float(trial.values[metric.name]) for metric in self._metrics],
            constraints={"place": float(place)},
        )


def _measured(trial: Trial, metrics: Sequence[Metric]) -> bool:
    return all(metric.name in trial.values for metric in metrics)


SAMPLER = Sampler("nsga2", Nsga2)
