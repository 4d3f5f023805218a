"""The search loop: propose -> submit -> record, asynchronous, without a generation's barrier.

The log is the truth: whatever was running when somebody else ran this search is tried again, with
the next attempt number. It must not know Ray, Optuna or SQL, and does no output of its own.
Next: `../propose/`, `pool.py`, `log.py`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from ..errors import Fenced, SearchError
from ..evaluate.evaluator import Evaluation, evaluation_seed
from ..evaluate.quiet import working
from ..objective import Measurement
from ..propose import SAMPLERS
from ..search_spec import SearchSpec
from ..space import SPACES
from ..tasks import TASKS
from ..trial import Trial, TrialState
from .candidates import Candidates
from .log import TrialLog
from .pool import Job, Outcome, Pool

HOPELESS = 10  # trials that fail alike before any has succeeded: it is not the candidates
POLL_S = 0.25  # how long a cancellation may go unseen


def drive(
    spec: SearchSpec,
    pool: Pool,
    log: TrialLog,
    seen: Callable[[Trial], None] = lambda trial: None,
) -> None:
    """Runs the search to its end, from wherever the log is; `seen` is called with each transition.

    Returns when the budget is spent, the space is exhausted, or the search was cancelled. Raises
    Fenced if somebody else runs it now, SpecError if what the spec names is broken, SearchError if
    no candidate can succeed.
    """
    spec.check_names()
    space, task = spec.part_of(SPACES.load(spec.space)), TASKS.load(spec.task)
    candidates = Candidates(space, task.signature, SAMPLERS.load(spec.sampler), spec)
    running: dict[int, Trial] = {}
    waiting: deque[Trial] = deque()

    def record(trial: Trial) -> Trial:
        log.append(trial)
        seen(trial)
        return trial

    def wanted() -> bool:
        with working():  # not while a latency is being measured
            return log.wanted()

    def next_trial() -> Trial | None:
        if waiting:
            return waiting.popleft()
        if candidates.count >= spec.trials:
            return None
        with working():
            trial = candidates.propose()
        return record(trial) if trial else None

    def retry(trial: Trial, why: str) -> None:
        if trial.attempt < spec.attempts:
            waiting.append(record(trial.again(why)))
        else:
            fail(trial, f"given up in attempt {trial.attempt}: {why}")

    def fail(trial: Trial, why: str) -> None:
        candidates.tell(record(trial.failed(why)))
        if reason := hopeless(log.history()):
            raise SearchError(reason)

    def take(outcome: Outcome) -> None:
        trial = running.pop(outcome.job.number)
        if outcome.lost:
            retry(trial, outcome.error)
        elif outcome.measured is None:
            fail(trial, outcome.error)
        elif wrong := unusable(outcome.measured, spec):
            fail(trial, wrong)
        else:
            candidates.tell(record(trial.succeeded(outcome.measured)))

    try:
        for earlier in log.history():
            candidates.tell(earlier)
            if earlier.state is TrialState.PENDING:
                waiting.append(earlier)
            elif earlier.state is TrialState.RUNNING:
                retry(earlier, "whoever ran the search was lost")
        while wanted():
            while len(running) < pool.slots and (trial := next_trial()):
                running[trial.number] = record(trial.started())
                candidates.tell(running[trial.number])
                pool.submit(Job(trial.number, trial.attempt, evaluation(spec, trial)))
            if not running:
                return
            for outcome in pool.wait(POLL_S):
                take(outcome)
    except Fenced:
        if log.wanted():
            raise
    finally:
        pool.stop()


def hopeless(trials: list[Trial]) -> str:
    """Why no candidate will succeed, empty if one may: all that ended failed, and alike."""
    ended = [trial for trial in trials if trial.state.final]
    errors = {trial.error for trial in ended if trial.state is TrialState.FAILED}
    if len(ended) < HOPELESS or len(errors) != 1 or any(trial.values for trial in ended):
        return ""
    return f"the first {len(ended)} trials failed alike: {errors.pop()}"


def unusable(measured: Measurement, spec: SearchSpec) -> str:
    """What is wrong with the values, empty if nothing is."""
    if missing := [name for name in spec.objectives if name not in measured.values]:
        return f"was not measured: {', '.join(missing)}"
    infinite = [name for name, value in measured.values.items() if not math.isfinite(value)]
    return f"not a finite number: {', '.join(infinite)}" if infinite else ""


def evaluation(spec: SearchSpec, trial: Trial) -> Evaluation:
    """What a worker is given: everything that the measurement depends on."""
    return Evaluation(
        architecture=trial.architecture,
        task=spec.task,
        steps=spec.steps,
        batch=spec.batch,
        threads=spec.threads,
        target=spec.target,
        seed=evaluation_seed(spec.seed, trial.architecture.fingerprint()),
        timeout_s=spec.timeout_s,
    )
