"""`State`: what the log of a search says, folded event by event, and what is to be done next.

Whoever goes on with a search makes one and tells it every event of the log, and knows what the one
before knew: what it answers depends on what it was told, not on when. It must not know workers nor
write anything. Next: `ladder.py`, `tally.py`; `loop.py`, which asks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import isfinite

from ..evaluate.quiet import working
from ..front import machine_of
from ..objective import Measurement
from ..propose import SAMPLERS
from ..search_checks import PREDICTED
from ..search_spec import SearchSpec
from ..space import SPACES
from ..tasks import TASKS
from ..told import answered_by, is_audited, stopped_on
from ..trial import Trial, TrialState
from .candidates import Candidates
from .ladder import Ladder
from .tally import Tally


class State:
    """The search `spec`, from its beginning. Raises SpecError if what the spec names is broken."""

    def __init__(self, spec: SearchSpec) -> None:
        task = TASKS.load(spec.task)
        space = spec.part_of(SPACES.load(spec.space).fitted(task.signature))
        self._candidates = Candidates(space, task.signature, SAMPLERS.load(spec.sampler), spec)
        self.ladder, self.tally = Ladder(spec), Tally(spec)
        self.running: dict[int, Trial] = {}
        self._queue: dict[int, Trial] = {}  # on the first rung, not started
        self._exhausted = self._auditing = False
        self.machine: str | None = None  # which one has measured here, once one has
        self.data: object = None  # on which data

    def tell(self, trial: Trial) -> None:
        """The next event. Raises SpecError if it is none of this search."""
        self.tally.tell(trial)
        self._candidates.tell(trial)
        self.ladder.tell(trial)
        if trial.values and trial.details and not answered_by(trial):
            self.machine, self.data = machine_of(trial), trial.details.get("data")
        self._auditing |= stopped_on(trial) is not None or is_audited(trial)
        self._queue.pop(trial.number, None)
        self.running.pop(trial.number, None)
        if trial.state is TrialState.RUNNING:
            self.running[trial.number] = trial
        elif trial.state is TrialState.PENDING and not trial.rung:
            self._queue[trial.number] = trial

    @property
    def prepared(self) -> int:
        """How many candidates wait on the first rung."""
        return len(self._queue)

    def next(self) -> Trial | None:
        """Who starts now: a trial whose worker was lost, then who climbs, then who waits."""
        if not self.tally.may_spend():
            return None
        waiting = sorted(self._queue.values(), key=lambda trial: (-trial.attempt, trial.number))
        if waiting and waiting[0].attempt > 1:
            return waiting[0]
        last = not waiting and (self._exhausted or not self._affordable())
        climbing = self.ladder.next(last, self._auditing)
        return climbing or (waiting[0] if waiting else None)

    def propose(self) -> Trial | None:
        """One more candidate, if the budget allows one and there is one."""
        if self._exhausted or self._auditing or not self._affordable():
            return None
        with working():  # not while a latency is being measured
            trial = self._candidates.propose()
        self._exhausted = trial is None
        return trial

    def stopped(self) -> list[Trial]:
        """What becomes of those who wait once nobody may start and nobody runs; after that, audits
        are due."""
        self._auditing = True
        spent = [trial.pruned("the budget was spent before") for trial in self._queue.values()]
        return spent + self.ladder.stopped(audit=self.tally.may_spend())

    def _affordable(self) -> bool:
        return self.tally.may_propose(self._candidates.count)


def became(trial: Trial, measured: Measurement, spec: SearchSpec, ladder: Ladder) -> Trial:
    """What the measurement of its rung makes of a running trial."""
    rung, values = ladder.rungs[trial.rung], {**trial.values, **measured.values}
    if infinite := [name for name, value in measured.values.items() if not isfinite(value)]:
        return trial.failed(f"not a finite number: {', '.join(infinite)}")
    unsure = set(measured.details.get("undecided", ()))
    unsure |= {"quality"} if rung.until < 1 else set()
    unsure |= set(PREDICTED) if rung.latency == "layers" else set()  # its stage has decided
    if why := measured.broken or broken(values, unsure, spec):
        return trial.pruned(why, measured)
    if missing := [name for name in spec.objectives if name not in values]:
        return trial.failed(f"was not measured: {', '.join(missing)}")
    if trial.rung + 1 == len(ladder.rungs):
        return trial.succeeded(measured)
    return trial.climbed(measured)


def settled(trial: Trial, answer: Measurement, spec: SearchSpec) -> Trial:
    """What an answer makes of a trial: it is of the whole training, whatever the rung."""
    why = broken(answer.values, set(), spec)
    return trial.pruned(why, answer) if why else trial.succeeded(answer)


def broken(values: Mapping[str, float], unsure: Collection[str], spec: SearchSpec) -> str:
    """The first constraint that sure values break, in words; empty if none."""
    sure = {name: value for name, value in values.items() if name not in unsure}
    return next((said for c in spec.kept() if (said := c.broken(sure))), "")
