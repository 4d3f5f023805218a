"""Optuna's multi-objective TPE (Ozaki et al., 2022), the one file that imports Optuna.

The study lives in memory and is a view of the log: what was told is added to it, what was asked
is not. A fresh sampler, seeded by the trial's number, makes each proposal, so that a search that
goes on after a crash proposes what it would have proposed. It must not know the log.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState as Optuna

from ..objective import Metric
from ..space import Space
from ..spec import Scalar
from ..trial import Trial, TrialState
from .proposer import Sampler

STARTUP = 8  # trials that are drawn uniformly before the model is believed


class Tpe:
    """A proposer around an Optuna study of one categorical per gene."""

    def __init__(self, space: Space, metrics: Sequence[Metric], seed: int) -> None:
        self._space = space
        self._metrics = metrics
        self._seed = seed
        self._numbers: dict[int, int] = {}  # ours -> the study's
        self._genes: dict[str, BaseDistribution] = {
            gene.name: CategoricalDistribution(gene.choices) for gene in space.genes
        }
        with _quietly():
            self._study = optuna.create_study(
                directions=[metric.direction.value for metric in metrics]
            )

    def ask(self, number: int, draw: int) -> dict[str, Scalar]:
        text = f"{self._seed}|{number}|{draw}".encode()
        seed = int.from_bytes(hashlib.sha256(text).digest()[:4])
        with _quietly():
            self._study.sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=STARTUP, multivariate=True, constant_liar=True
            )
            asked = self._study.ask(self._genes)
            genes = {name: asked.params[name] for name in self._genes}
            # a proposal is not a trial yet: its canonical form comes back by `tell`, or never
            self._study.tell(asked, state=Optuna.FAIL)
        return self._space.canonical(genes)

    def tell(self, trial: Trial) -> None:
        with _quietly():
            if trial.number not in self._numbers:
                self._numbers[trial.number] = len(self._study.get_trials(deepcopy=False))
                self._study.add_trial(
                    optuna.trial.create_trial(
                        state=Optuna.RUNNING,
                        params=dict(trial.params),
                        distributions=self._genes,
                    )
                )
            number = self._numbers[trial.number]
            if trial.state is TrialState.SUCCEEDED:
                values = [trial.values[metric.name] for metric in self._metrics]
                self._study.tell(number, values)
            elif trial.state.final:
                self._study.tell(number, state=Optuna.FAIL)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without Optuna's log lines and its warnings about experimental arguments; what the user has
    set is put back."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            optuna.logging.set_verbosity(before)


SAMPLER = Sampler("tpe", Tpe)
