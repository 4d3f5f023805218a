"""`History`: what a sampler that learns remembers of the trials that it was told.

The best are kept, and a fair sample of the others: what a proposal costs does not grow with the
search. It must not know how proposals are made. Next: `tpe.py`, `nsga2.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from ..objective import Metric
from ..ranking import order
from ..spec import Scalar
from ..told import stopped_on
from ..trial import Trial, TrialState
from .places import Genes, key_of


class History:
    """Keeps the `best` trials and `rest` of the others, and sorts out whenever `slack` more have
    come. What it keeps depends on what it was told, in that order, and on nothing else.

    A trial counts once it has values: that a ladder's early rung has measured some tells something
    too. Failed trials do not count, for that may be the machine's doing, but they are known.
    """

    def __init__(self, metrics: Sequence[Metric], *, best: int, rest: int, slack: int) -> None:
        self._metrics = metrics
        self._best, self._rest, self._slack = best, rest, slack
        self._known: set[str] = set()
        self._kept: dict[int, Trial] = {}
        self._running: dict[int, Trial] = {}

    def tell(self, trial: Trial) -> None:
        """The newest state of a trial; a user's own architecture, which has no genes, is none of
        ours."""
        if not trial.params:
            return
        self._known.add(key_of(trial.params))
        self._running.pop(trial.number, None)
        if trial.state is TrialState.FAILED:
            self._kept.pop(trial.number, None)
        elif trial.values or trial.state.final:
            self._kept[trial.number] = trial
        else:
            self._running[trial.number] = trial
        if len(self._kept) > self._best + self._rest + self._slack:
            self._sort_out()

    def knows(self, genes: Genes) -> bool:
        """Whether a trial with these genes was told."""
        return key_of(genes) in self._known

    @property
    def kept(self) -> list[Trial]:
        """Those that count, in the order in which they first did."""
        return list(self._kept.values())

    @property
    def running(self) -> list[Trial]:
        """Those of which nothing is known yet."""
        return [self._running[number] for number in sorted(self._running)]

    def ranked(self) -> list[Trial]:
        """The kept ones, the best first: who got further on the ladder stands before who was
        stopped or still waits, for values of less training do not compare; among equals the order
        of `ranking.order`. Last, who broke a constraint."""
        groups: dict[float, list[Trial]] = {}
        for trial in self._kept.values():
            groups.setdefault(_reached(trial), []).append(trial)
        return [
            t for reached in sorted(groups)[::-1] for t in order(groups[reached], self._metrics)
        ]

    def _sort_out(self) -> None:
        ranked = self.ranked()
        others = sorted(ranked[self._best :], key=_chance)[: self._rest]
        numbers = {trial.number for trial in [*ranked[: self._best], *others]}
        self._kept = {n: trial for n, trial in self._kept.items() if n in numbers}


def untold(draws: Iterable[dict[str, Scalar]], history: History) -> dict[str, Scalar]:
    """The first that no trial has, or the last if all are known."""
    genes: dict[str, Scalar] = {}
    for genes in draws:
        if not history.knows(genes):
            break
    return genes


def _reached(trial: Trial) -> float:
    """The rung that a trial got to: all of them if it succeeded, none if a constraint ended it."""
    if trial.state is TrialState.SUCCEEDED:
        return float("inf")
    if trial.state is TrialState.PRUNED and stopped_on(trial) is None:
        return -1.0
    return float(trial.rung)


def _chance(trial: Trial) -> bytes:
    """Of a number its own: of any set, those with the lowest are a fair sample."""
    return hashlib.sha256(f"{trial.number}".encode()).digest()
