"""`Pool`: workers that evaluate candidates. `SerialPool` is the readable one: this process.

A pool hands back outcomes; it keeps nothing and decides nothing, so it can be lost at any moment.
All pools pass `PoolContract` in `search/testing_pool.py`. It must not know what a search is.
Next: `ray_pool.py`, processes on this machine or a cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ...errors import one_line
from ..errors import PoolError, SearchError
from ..evaluate.evaluator import Evaluation
from ..objective import Measurement

Evaluate = Callable[[Evaluation], Measurement]


@dataclass(frozen=True)
class Job:
    """One attempt at one trial."""

    number: int
    attempt: int
    evaluation: Evaluation


@dataclass(frozen=True)
class Outcome:
    """What became of a job: `measured`; or `error` says why not, and `lost` that it was the
    worker, not the candidate, that ended: another attempt may succeed."""

    job: Job
    measured: Measurement | None = None
    error: str = ""
    lost: bool = False


class Pool(Protocol):
    """The laws:

    - `slots` jobs run at once; `submit` raises PoolError beyond that, and after `close`.
    - Each submitted job comes back from `wait` exactly once, unless `stop` or `close` dropped it.
      A candidate's exception is an outcome, whatever it is; a worker that dies is an outcome with
      `lost`, and is replaced.
    - `wait(timeout_s)` returns as soon as there is an outcome, or with none: after the timeout, or
      at once if nothing was submitted. (In one process it returns when the job has ended.)
    - `stop` drops what runs; the pool can be used again. `close` leaves no process behind.
    """

    @property
    def slots(self) -> int: ...

    def submit(self, job: Job) -> None: ...

    def wait(self, timeout_s: float) -> list[Outcome]: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


class SerialPool:
    """One job at a time, in this process, when `wait` is called. A candidate that crashes the
    interpreter takes the search with it; for that, and for speed, there is `RayPool`."""

    slots = 1

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._job: Job | None = None
        self._closed = False

    def submit(self, job: Job) -> None:
        if self._closed or self._job is not None:
            raise PoolError("the pool is closed" if self._closed else "the only slot is taken")
        self._job = job

    def wait(self, timeout_s: float) -> list[Outcome]:
        job, self._job = self._job, None
        return [attempt(self._evaluate, job)] if job else []

    def stop(self) -> None:
        self._job = None

    def close(self) -> None:
        self.stop()
        self._closed = True


def attempt(evaluate: Evaluate, job: Job) -> Outcome:
    """The outcome of a job in this process; never raises what a candidate raises."""
    try:
        measured: object = evaluate(job.evaluation)
    except SearchError as error:
        return Outcome(job, error=one_line(str(error)))
    except (Exception, SystemExit) as error:
        return Outcome(job, error=one_line(f"{type(error).__name__}: {error}"))
    if not isinstance(measured, Measurement):
        return Outcome(job, error=f"wanted a Measurement, got {type(measured).__name__}")
    if wrong := measured.malformed():
        return Outcome(job, error=one_line(f"malformed measurement: {wrong}"))
    return Outcome(job, measured=measured)
