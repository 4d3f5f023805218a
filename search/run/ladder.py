"""The fidelity ladder: who goes on after a part of the training, for any number of objectives.

Successive halving ("Hyperband", Li et al., 2018; asynchronous: "ASHA", Li et al., 2020) with Pareto
rank and hypervolume contribution in place of one score, and one change: whoever is not dominated on
a rung goes on, so that only those are stopped that somebody beats in everything. The ladder is a
fold of the log. It must not know workers. Next: `loop.py`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass

from ..front import pareto
from ..objective import METRICS
from ..ranking import order, ranks
from ..search_spec import SearchSpec
from ..told import answered_by
from ..trial import Trial, TrialState


@dataclass(frozen=True)
class Rung:
    """What is done there: training up to the share `until` of the budget, if the quality is among
    the `metrics` that are measured; latencies of "whole" models, or predicted from "layers"."""

    until: float
    metrics: tuple[str, ...]
    latency: str


def planned(spec: SearchSpec) -> tuple[Rung, ...]:
    """The first measures everything, the next ones the quality of more training; where latencies
    were predicted, the last measures them.

    >>> [(round(rung.until, 2), rung.metrics) for rung in planned(SearchSpec(rungs=2))]
    [(0.33, ('quality', 'latency_ms', 'params')), (1.0, ('quality',))]
    """
    wanted = tuple(dict.fromkeys([*spec.objectives, *(c.metric for c in spec.kept())]))
    trains = "quality" in wanted
    shares = (
        [float(spec.keep) ** (at + 1 - spec.rungs) for at in range(spec.rungs)] if trains else [1.0]
    )
    rungs = [Rung(shares[0], wanted, spec.latency)]
    rungs += [Rung(share, ("quality",), spec.latency) for share in shares[1:]]
    timed = tuple(name for name in wanted if METRICS[name].of_machine)
    if spec.latency == "layers" and timed:
        rungs.append(Rung(1.0, timed, "whole"))
    return tuple(rungs)


class Ladder:
    """`tell` it every transition; `next` is who may climb. Its answers depend on what it was told,
    not on when it is asked."""

    def __init__(self, spec: SearchSpec) -> None:
        self.rungs = planned(spec)
        self._spec = spec
        self._metrics = [METRICS[name] for name in spec.objectives]
        # rung -> number -> the trial as it left this rung
        self._left: dict[int, dict[int, Trial]] = defaultdict(dict)
        self._waiting: dict[int, Trial] = {}
        self._going: dict[int, set[int]] = {}  # rung -> who may climb from it, until it changes

    def tell(self, trial: Trial) -> None:
        self._waiting.pop(trial.number, None)
        of_rung = trial.rung - 1 if trial.state is TrialState.PENDING else trial.rung
        measured = all(metric.name in trial.values for metric in self._metrics)
        measured = measured and not answered_by(trial)  # which is of more training
        climbed = trial.state is TrialState.PENDING and trial.rung > 0
        if climbed:
            self._waiting[trial.number] = trial
        if measured and (climbed or trial.state is TrialState.SUCCEEDED):
            self._left[of_rung].setdefault(trial.number, trial)
            self._going.pop(of_rung, None)
        if trial.state in (TrialState.PRUNED, TrialState.FAILED):
            for rung in range(of_rung):  # who is on no front is nobody to be behind
                self._left[rung].pop(trial.number, None)
                self._going.pop(rung, None)

    def next(self, last: bool, auditing: bool = False) -> Trial | None:
        """Who climbs now, from the highest rung; None if nobody may. `last` says that no further
        candidate comes: until then a rung lets nobody on before as many as one of whom goes on
        have come to it. `auditing`, that whoever waits was stopped and is to be audited."""
        by_rung: dict[int, dict[int, Trial]] = defaultdict(dict)
        for trial in self._waiting.values():
            by_rung[trial.rung][trial.number] = trial
        for rung in sorted(by_rung, reverse=True):
            waiting = by_rung[rung]
            if auditing:
                return waiting[min(waiting)].audited()
            going = {number for number, trial in waiting.items() if trial.attempt > 1}
            if last or len(self._left[rung - 1]) >= self._spec.keep:
                going |= waiting.keys() & self._may_climb(rung - 1)
            if going:
                return waiting[min(going)]
        return None

    def stopped(self, audit: bool) -> list[Trial]:
        """Those who wait, pruned, once nobody may climb and no further candidate comes; with
        `audit` without those who are trained to the end all the same."""
        made = []
        for rung, left in self._left.items():
            places = dict(zip(left, ranks(list(left.values()), self._metrics), strict=True))
            for trial in self._waiting.values():
                if trial.rung == rung + 1 and not (audit and self._is_audited(trial)):
                    ahead = f"behind {places[trial.number]} fronts of {len(left)} trials"
                    made.append(trial.stopped(f"stopped on rung {rung}, {ahead}"))
        return made

    def _is_audited(self, trial: Trial) -> bool:
        """By chance that depends on the architecture alone."""
        text = f"{self._spec.seed}|audit|{trial.architecture.fingerprint()}"
        drawn = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
        return drawn < self._spec.audit

    def _may_climb(self, rung: int) -> set[int]:
        if rung not in self._going:
            trials = list(self._left[rung].values())
            best = order(trials, self._metrics)[: len(trials) // self._spec.keep]
            front = pareto(trials, self._metrics)
            self._going[rung] = {trial.number for trial in [*best, *front]}
        return self._going[rung]
