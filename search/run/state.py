"""`State`: what the log of a search says, folded event by event, and what is to be done next.

Whoever goes on with a search makes one and tells it every event of the log, and knows what the one
before knew: what it answers depends on what it was told, not on when. It must not know workers nor
write anything. Next: `loop.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import isfinite

from ..evaluate.quiet import working
from ..front import machine_of
from ..objective import Measurement
from ..propose import SAMPLERS
from ..search_spec import SearchSpec
from ..space import SPACES
from ..tasks import TASKS
from ..told import flops_of, seconds_of
from ..trial import Trial, TrialState
from .candidates import Candidates
from .ladder import Ladder

HOPELESS = 10  # trials that fail alike before any has succeeded: it is not the candidates
ORPHANED = "whoever ran the search was lost"
DRIVERS = 10  # so many may be lost over one trial: it can be the one that ends them
FREE = 10  # candidates that break a constraint before any training, for each trial that is paid


class State:
    """The search `spec`, from its beginning. Raises SpecError if what the spec names is broken."""

    def __init__(self, spec: SearchSpec) -> None:
        task = TASKS.load(spec.task)
        space = spec.part_of(SPACES.load(spec.space).fitted(task.signature))
        self._spec = spec
        self._candidates = Candidates(space, task.signature, SAMPLERS.load(spec.sampler), spec)
        self.ladder = Ladder(spec)
        self._queue: dict[int, Trial] = {}  # on the first rung, not started
        self.running: dict[int, Trial] = {}
        self._exhausted = False
        self._auditing = False
        self._free = 0
        self._spent = {"seconds": 0.0, "flops": 0.0}
        self._errors: set[str] = set()
        self._ended, self._any_values = 0, False
        self._losses: Counter[int] = Counter()
        self._orphanings: Counter[int] = Counter()
        self.machine: str | None = None  # which one has measured here, once one has

    def tell(self, trial: Trial) -> None:
        """The next event. Raises SpecError if it is none of this search."""
        if trial.state is TrialState.PENDING and trial.attempt > 1:
            (self._orphanings if trial.error == ORPHANED else self._losses)[trial.number] += 1
        self._candidates.tell(trial)
        self.ladder.tell(trial)
        self._queue.pop(trial.number, None)
        self.running.pop(trial.number, None)
        if trial.state is TrialState.RUNNING:
            self.running[trial.number] = trial
        elif trial.state is TrialState.PENDING and not trial.rung:
            self._queue[trial.number] = trial
        elif trial.state.final:
            self._tally(trial)

    def _tally(self, trial: Trial) -> None:
        if trial.state is TrialState.SUCCEEDED and "answered" not in trial.details:
            self.machine = machine_of(trial)
        self._ended += 1
        self._any_values |= bool(trial.values)
        if trial.state is TrialState.FAILED:
            self._errors.add(trial.error)
        if trial.state is TrialState.PRUNED and "quality" not in trial.values:
            self._free += 1
        if "answered" not in trial.details:
            self._spent["seconds"] += sum(seconds_of(trial).values())
            self._spent["flops"] += flops_of(trial)

    def lost(self, trial: Trial, why: str) -> Trial:
        """What becomes of a running trial whose worker, or whose driver, is no more."""
        orphaned = why == ORPHANED
        before = (self._orphanings if orphaned else self._losses)[trial.number]
        if before + 1 < (DRIVERS if orphaned else self._spec.attempts):
            return trial.again(why)
        return trial.failed(f"given up in attempt {trial.attempt}: {why}")

    @property
    def prepared(self) -> int:
        """How many candidates wait on the first rung."""
        return len(self._queue)

    def next(self) -> Trial | None:
        """Who starts now: a trial whose worker was lost, then who climbs, then who waits."""
        waiting = sorted(self._queue.values(), key=lambda trial: (-trial.attempt, trial.number))
        if waiting and waiting[0].attempt > 1:
            return waiting[0]
        last = not waiting and (self._exhausted or not self._affordable())
        climbing = self.ladder.next(last, self._auditing)
        return climbing or (waiting[0] if waiting else None)

    def propose(self) -> Trial | None:
        """One more candidate, if the budget allows one and there is one."""
        if self._exhausted or not self._affordable():
            return None
        with working():  # not while a latency is being measured
            trial = self._candidates.propose()
        self._exhausted = trial is None
        return trial

    def stopped(self) -> list[Trial]:
        """What becomes of those who wait once nobody may climb; after that, audits are due."""
        self._auditing = True
        return self.ladder.stopped()

    def _affordable(self) -> bool:
        spec, count = self._spec, self._candidates.count
        paid = count - self._free < spec.trials and count < FREE * spec.trials + 100
        within = (not limit or self._spent[name] < limit for name, limit in _limits(spec).items())
        return paid and all(within)

    def hopeless(self) -> str:
        """Why no candidate will succeed, empty if one may: all that ended failed, and alike."""
        if self._ended < HOPELESS or len(self._errors) != 1 or self._any_values:
            return ""
        return f"the first {self._ended} trials failed alike: {next(iter(self._errors))}"


def _limits(spec: SearchSpec) -> Mapping[str, float]:
    return {"seconds": spec.seconds, "flops": spec.flops}


def became(trial: Trial, measured: Measurement, spec: SearchSpec, ladder: Ladder) -> Trial:
    """What the measurement of its rung makes of a running trial."""
    values, rung = {**trial.values, **measured.values}, ladder.rungs[trial.rung]
    unsure = set(measured.details.get("undecided", ())) | ({"quality"} if rung.until < 1 else set())
    sure = {name: value for name, value in values.items() if name not in unsure}
    broken = [said for c in spec.kept() if (said := c.broken(sure))]
    if measured.broken or broken:
        return trial.pruned(measured.broken or broken[0], measured)
    if wrong := unusable(measured, values, spec):
        return trial.failed(wrong)
    if trial.rung + 1 == len(ladder.rungs):
        return trial.succeeded(measured)
    return trial.climbed(measured)


def unusable(measured: Measurement, values: Mapping[str, float], spec: SearchSpec) -> str:
    """What is wrong with the values, empty if nothing is."""
    if missing := [name for name in spec.objectives if name not in values]:
        return f"was not measured: {', '.join(missing)}"
    infinite = [name for name, value in measured.values.items() if not isfinite(value)]
    return f"not a finite number: {', '.join(infinite)}" if infinite else ""
