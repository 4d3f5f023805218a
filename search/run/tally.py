"""`Tally`: how the trials of a search have ended, and what they have cost.

Kept from the newest state of each trial, so that it can be told events without details as long as
the newest of a trial has them. It must not know who proposes. Next: `state.py`.
"""

from __future__ import annotations

from collections import Counter

from ..search_spec import SearchSpec
from ..told import answered_by, flops_of, is_free, seconds_of
from ..trial import Trial, TrialState

HOPELESS = 10  # trials that fail alike before any has succeeded: it is not the candidates
FREE = 10  # candidates that break a constraint before any training, for each trial that is paid
ORPHANED = "whoever ran the search was lost"
DRIVERS = 10  # lost over one trial with no result between: it may be the one that ends them


class Tally:
    """`spec` may be replaced by one that may spend something else."""

    def __init__(self, spec: SearchSpec) -> None:
        self.spec = spec
        self._costs: dict[int, tuple[float, float]] = {}
        self._seconds = self._flops = 0.0
        self._free = self._ended = 0
        self._errors: set[str] = set()
        self._any_values = False
        self._losses: Counter[int] = Counter()
        self._orphanings: Counter[int] = Counter()

    def tell(self, trial: Trial) -> None:
        """The next event."""
        again = trial.state is TrialState.PENDING and trial.attempt > 1
        if again:
            (self._orphanings if trial.error == ORPHANED else self._losses)[trial.number] += 1
        elif trial.state is not TrialState.RUNNING and (trial.state.final or trial.rung):
            self._orphanings.clear()  # there is progress
        seconds, flops = self._costs.get(trial.number, (0.0, 0.0))
        if not answered_by(trial):
            now = sum(seconds_of(trial).values()), flops_of(trial)
            self._seconds += now[0] - seconds
            self._flops += now[1] - flops
            self._costs[trial.number] = now
        if trial.state.final:
            self._ended += 1
            self._any_values |= bool(trial.values)
            self._free += is_free(trial)
            if trial.state is TrialState.FAILED:
                self._errors.add(trial.error)

    def may_propose(self, count: int) -> bool:
        """Whether the budget allows one candidate more than `count`."""
        paid = count - self._free
        bounded = paid < self.spec.trials and count < FREE * self.spec.trials + 100
        return bounded and self.may_spend()

    def may_spend(self) -> bool:
        """Whether anything more may be evaluated."""
        spec = self.spec
        in_time = not spec.seconds or self._seconds < spec.seconds
        return in_time and (not spec.flops or self._flops < spec.flops)

    def lost(self, trial: Trial, why: str) -> Trial:
        """What becomes of a running trial whose worker, or whose driver, is no more."""
        orphaned = why == ORPHANED
        before = (self._orphanings if orphaned else self._losses)[trial.number]
        if before + 1 < (DRIVERS if orphaned else self.spec.attempts):
            return trial.again(why)
        return trial.failed(f"given up in attempt {trial.attempt}: {why}")

    def hopeless(self) -> str:
        """Why no candidate will succeed, empty if one may: all that ended failed, and alike."""
        if self._ended < HOPELESS or len(self._errors) != 1 or self._any_values:
            return ""
        return f"the first {self._ended} trials failed alike: {next(iter(self._errors))}"
