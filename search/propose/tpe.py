"""Optuna's multi-objective TPE (Ozaki et al., 2022) on a history that does not grow.

A study in memory is made for each state of the history, and a fresh sampler, seeded by the trial's
number, for each proposal: so a search that goes on after a crash proposes what it would have
proposed. It must not know the log. Next: `history.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as Optuna

from ..objective import Metric
from ..space import Space
from ..spec import Scalar
from ..trial import Trial, TrialState
from .history import History, untold
from .optuna_study import Knobs, quietly
from .places import seed_of
from .proposer import Sampler

STARTUP = 8  # trials that are drawn uniformly before the model is believed
# Trials that the model sees. Of a history it calls a tenth good, 25 at most, and is asked for what
# is like those and unlike the others: the best, and a sample of the others, are all it needs. Half
# as many others cost 0.4 % of the hypervolume (docs/measurements/search_quality.json has these).
BEST, REST, SLACK = 128, 128, 64
DRAWS = 3  # samples of the model for one proposal, while they are known


class _Ours(optuna.samplers.TPESampler):
    """Optuna's, which need not find out from all trials what the genes are."""

    def __init__(self, seed: int, genes: dict[str, BaseDistribution]) -> None:
        super().__init__(seed=seed, n_startup_trials=STARTUP, multivariate=True, constant_liar=True)
        self._genes = genes

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._genes


class Tpe:
    """A proposer around an Optuna study of one categorical per gene."""

    def __init__(self, space: Space, metrics: Sequence[Metric], seed: int) -> None:
        self._metrics = metrics
        self._seed = seed
        self._knobs = Knobs(space, ordered=False)
        self._history = History(metrics, best=BEST, rest=REST, slack=SLACK)
        self._study: optuna.Study | None = None
        self._done: dict[int, FrozenTrial] = {}  # who succeeded, in Optuna's words

    def ask(self, number: int, draw: int) -> dict[str, Scalar]:
        with quietly():
            return untold(self._draws(seed_of(self._seed, number, draw)), self._history)

    def tell(self, trial: Trial) -> None:
        self._history.tell(trial)
        self._study = None

    def study(self) -> optuna.Study:
        """What the model sees: who succeeded with their values; who broke a constraint or was
        stopped early, as beyond a constraint by their place; who runs, as unlike to be good."""
        with quietly():
            study = optuna.create_study(directions=[m.direction.value for m in self._metrics])
            places = {trial.number: at for at, trial in enumerate(self._history.ranked(), 1)}
            kept = [self._frozen(t, places[t.number]) for t in self._history.kept]
            study.add_trials([*kept, *map(self._running, self._history.running)])
        self._done = {number: made for number, made in self._done.items() if number in places}
        return study

    def _draws(self, seed: int) -> Iterator[dict[str, Scalar]]:
        if self._study is None:
            self._study = self.study()
        study, genes = self._study, self._knobs.distributions
        study.sampler = _Ours(seed, genes)
        for _ in range(DRAWS):
            asked = study.ask(genes)
            # a proposal is not a trial yet: its canonical form comes back by `tell`, or never
            study.tell(asked, state=Optuna.FAIL)
            yield self._knobs.genes(asked.params)

    def _frozen(self, trial: Trial, place: int) -> FrozenTrial:
        if trial.state is not TrialState.SUCCEEDED:
            return create_trial(
                state=Optuna.PRUNED,
                params=self._knobs.places(trial.params),
                distributions=self._knobs.distributions,
                constraints={"place": float(place)},
            )
        if trial.number not in self._done:
            self._done[trial.number] = create_trial(
                state=Optuna.COMPLETE,
                params=self._knobs.places(trial.params),
                distributions=self._knobs.distributions,
                values=[float(trial.values[metric.name]) for metric in self._metrics],
            )
        return self._done[trial.number]

    def _running(self, trial: Trial) -> FrozenTrial:
        return create_trial(
            state=Optuna.RUNNING,
            params=self._knobs.places(trial.params),
            distributions=self._knobs.distributions,
        )


SAMPLER = Sampler("tpe", Tpe)
