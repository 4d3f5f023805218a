"""The search loop: asynchronous, without a generation's barrier; the log is the truth.

    replay -> start who may -> prepare one candidate more -> take what came -> ...

Candidates are proposed ahead, while workers work, and are in the log before they are started: so
nobody waits for a sampler, and whoever goes on with the log has the same ones. It must not know
Ray, Optuna or SQL, and does no output of its own. Next: `state.py`, `pool.py`, `log.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..errors import Fenced, SearchError
from ..evaluate.cache import cache_folder
from ..evaluate.checkpoint import forget, sweep
from ..evaluate.evaluator import Evaluation, evaluation_seed
from ..evaluate.quiet import working
from ..objective import Measurement
from ..search_spec import SearchSpec
from ..trial import Trial
from .ladder import Rung
from .log import TrialLog
from .pool import Job, Outcome, Pool
from .state import State, became, settled
from .tally import ORPHANED

POLL_S = 0.25  # how long a cancellation may go unseen

Seen = Callable[[Trial], None]


def drive(spec: SearchSpec, pool: Pool, log: TrialLog, seen: Seen = lambda trial: None) -> None:
    """Runs the search to its end, from wherever the log is; `seen` is called with each transition.

    Returns when the budget is spent, the space is exhausted, or the search was paused or cancelled.
    Raises Fenced if somebody else runs it now, SpecError if what the spec names is broken,
    SearchError if no candidate can succeed.
    """
    run = _Run(spec.check_names(), pool, log, seen)
    try:
        run.replay()
        while run.wanted():
            run.start()
            more = run.prepare()
            if not more and not run.busy and not run.end():
                return
            outcomes = pool.wait(0.0 if more or run.answered else POLL_S)
            if not outcomes:
                run.write()  # else together with what follows from them
            run.take(outcomes)
        run.write()
    except Fenced:
        if log.wanted():
            raise
    finally:
        pool.stop()


class _Run:
    """One driver of one search. What it decides is told to the state at once, and written to the
    log together: once for each glance at the workers."""

    def __init__(self, spec: SearchSpec, pool: Pool, log: TrialLog, seen: Seen) -> None:
        self._spec, self._pool, self._log, self._seen = spec, pool, log, seen
        self._state, self._recipe = State(spec), spec.recipe()
        self._moves: list[Trial] = []
        self._jobs: list[Job] = []
        self.answered: list[tuple[Trial, Measurement]] = []
        self._answers: dict[int, Measurement | None] = {}
        self._began: dict[int, float] = {}
        self._asked_at = -math.inf

    @property
    def busy(self) -> bool:
        return bool(self._state.running)

    def wanted(self) -> bool:
        """Asked now and then: the log refuses what is appended to a search that is not wanted."""
        if time.monotonic() - self._asked_at < POLL_S:
            return True
        with working():  # not while a latency is being measured
            wanted = self._log.wanted()
            if wanted:
                self._state.tally.spec = self._log.renewed(self._spec)
        self._asked_at = time.monotonic()
        return wanted

    def replay(self) -> None:
        """What the log says; whatever was running is tried again."""
        sweep(cache_folder("trainings"))
        for event in self._log.events():
            self._state.tell(event)
        for trial in list(self._state.running.values()):
            self._move(self._state.tally.lost(trial, ORPHANED))

    def start(self) -> None:
        """Fills the slots with who may run."""
        state, spec = self._state, self._spec
        while len(state.running) < self._pool.slots and (trial := state.next()):
            started = self._move(trial.started())
            if answer := self._answer(started):
                self.answered.append((started, answer))  # it takes its turn like any other
                continue
            evaluated = evaluation(spec, started, state.ladder.rungs[trial.rung])
            self._jobs.append(Job(trial.number, trial.attempt, evaluated))
            self._began[trial.number] = time.monotonic()
        if self._jobs or any(move.state.final or move.rung for move in self._moves):
            self.write()

    def prepare(self) -> bool:
        """One candidate more, if fewer wait than there are slots."""
        if self._state.prepared >= self._pool.slots:
            return False
        if trial := self._state.propose():
            self._answer(self._move(trial))
        return trial is not None

    def take(self, outcomes: Sequence[Outcome]) -> None:
        """What became of jobs and of what was answered; written when the next ones start."""
        answered, self.answered = self.answered, []
        for trial, answer in answered:
            self._move(settled(trial, answer, self._spec))
        for outcome in outcomes:
            running = self._state.running.get(outcome.job.number)
            if running is not None and running.attempt == outcome.job.attempt:
                self._move(self._after(running, outcome))  # else of an attempt that was given up
        if reason := self._state.tally.hopeless():
            self.write()
            raise SearchError(reason)

    def _after(self, trial: Trial, outcome: Outcome) -> Trial:
        if outcome.measured is not None:
            return became(trial, outcome.measured, self._spec, self._state.ladder)
        spent = time.monotonic() - self._began[trial.number]
        tried = trial.charged("lost" if outcome.lost else "failed", spent)
        if outcome.lost:
            return self._state.tally.lost(tried, outcome.error)
        return tried.failed(outcome.error)

    def end(self) -> bool:
        """Whether there is still something to do once nobody runs and nobody may start: those who
        wait on the ladder are stopped."""
        if self._state.next() is not None:
            return True
        for trial in self._state.stopped():
            self._move(trial)
        self.write()
        return self._state.next() is not None

    def _answer(self, trial: Trial) -> Measurement | None:
        """What another search has measured on the machine that measures here; looked for once, if
        possible while workers work."""
        machine = self._state.machine
        if machine is None or trial.rung or trial.attempt > 1:
            return None
        if trial.number not in self._answers:
            found = self._log.answer(trial.architecture, self._recipe, machine)
            wanted = set(self._state.ladder.rungs[0].metrics)
            if found and (
                wanted - set(found.values) or found.details.get("data") != self._state.data
            ):
                found = None
            self._answers[trial.number] = found
        return self._answers[trial.number]

    def _move(self, trial: Trial) -> Trial:
        self._state.tell(trial)
        self._moves.append(trial)
        return trial

    def write(self) -> None:
        """To the log first: what a worker does is in it before."""
        moves, jobs = self._moves, self._jobs
        self._moves, self._jobs = [], []
        if moves:
            self._log.append(*moves)
        for job in jobs:  # nobody waits for what is shown and swept up
            self._pool.submit(job)
        for trial in moves:
            if trial.state.final:
                self._answers.pop(trial.number, None)
                with suppress(OSError):
                    forget(evaluation(self._spec, trial, self._state.ladder.rungs[0]))
            self._seen(trial)


def evaluation(spec: SearchSpec, trial: Trial, rung: Rung) -> Evaluation:
    """What a worker is given: everything that the measurement depends on. Weights that are shared
    are those of the search, not of one candidate."""
    own = evaluation_seed(spec.seed, trial.architecture.fingerprint())
    return Evaluation(
        architecture=trial.architecture,
        task=spec.task,
        budget=spec.training(),
        batch=spec.batch,
        threads=spec.threads,
        target=spec.target,
        seed=spec.seed if spec.weights == "shared" else own,
        timeout_s=spec.timeout_s,
        until=rung.until,
        rates=spec.rates,
        pretrain=spec.pretrain,
        metrics=rung.metrics,
        latency=rung.latency,
        weights=spec.weights,
        constraints=spec.constraints,
        checkpoint=str(cache_folder("trainings")),
        proxies=() if trial.rung else spec.proxies,
    )
