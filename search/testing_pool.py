"""`PoolContract` and what it evaluates: toy candidates that behave, raise, hang or die.

For whoever writes a pool: subclass the contract in a test and say how a pool is made. It must not
know any pool. Next: `testing.py`, the contract of logs.
"""

from __future__ import annotations

import os
import time
from typing import ClassVar

from .budget import Budget
from .errors import EvaluationError, PoolError
from .evaluate.evaluator import Evaluation
from .objective import Measurement
from .run.pool import Job, Outcome, Pool
from .spec import ArchSpec

LIMIT_S = 300  # for what takes a moment; only a pool that is wrong takes so long
GOOD, RAISES, REFUSES, UNPICKLABLE, DIES, HANGS, SLOW = range(7)


def toy(evaluation: Evaluation) -> Measurement:
    """Does what the seed says."""
    match evaluation.seed:
        case 1:
            raise RuntimeError("two\nlines")
        case 2:
            raise EvaluationError("diverged")
        case 3:
            raise _Unpicklable()
        case 4:
            os._exit(1)
        case 5:
            time.sleep(600)
        case 6:
            time.sleep(0.5)
    return Measurement({"quality": float(evaluation.batch)}, {"pid": os.getpid()})


def job(number: int, behaviour: int = GOOD, timeout_s: int = LIMIT_S) -> Job:
    """A job whose measurement is its number."""
    architecture = ArchSpec.of_images((1, 8, 8), 10, 2, 32, ())
    evaluation = Evaluation(
        architecture, "digits", Budget(1), number, 1, "eager", behaviour, timeout_s
    )
    return Job(number, 1, evaluation)


class _Unpicklable(Exception):
    def __reduce__(self) -> str:
        raise TypeError("not me")


class PoolContract:
    """Subclass, say how to `make` a pool that evaluates `toy`, and whether it `isolates` its
    workers from this process."""

    isolates: ClassVar[bool]

    def make(self) -> Pool:
        raise NotImplementedError

    def collect(self, pool: Pool, count: int, limit_s: float = LIMIT_S) -> dict[int, Outcome]:
        """The outcomes of `count` jobs by number. Fails if one comes twice or not at all."""
        outcomes: dict[int, Outcome] = {}
        ends = time.monotonic() + limit_s
        while len(outcomes) < count and time.monotonic() < ends:
            for outcome in pool.wait(1.0):
                assert outcome.job.number not in outcomes, "an outcome came twice"
                outcomes[outcome.job.number] = outcome
        assert len(outcomes) == count, f"{count - len(outcomes)} outcomes did not come"
        return outcomes

    def test_every_job_comes_back_once(self) -> None:
        pool = self.make()
        try:
            for start in range(0, 6, pool.slots):
                numbers = range(start, start + pool.slots)
                for number in numbers:
                    pool.submit(job(number))
                outcomes = self.collect(pool, pool.slots)
                assert {n: o.measured and o.measured.values for n, o in outcomes.items()} == {
                    n: {"quality": float(n)} for n in numbers
                }
            assert pool.wait(0.0) == []
        finally:
            pool.close()

    def test_what_a_candidate_raises_is_an_outcome(self) -> None:
        pool = self.make()
        try:
            errors = {
                RAISES: "RuntimeError: two lines",
                REFUSES: "diverged",
                UNPICKLABLE: "_Unpicklable:",
            }
            for behaviour, expected in errors.items():
                pool.submit(job(behaviour, behaviour))
                outcome = self.collect(pool, 1)[behaviour]
                assert outcome.measured is None
                assert not outcome.lost
                assert outcome.error.startswith(expected.rstrip())
            pool.submit(job(9))
            assert self.collect(pool, 1)[9].measured is not None
        finally:
            pool.close()

    def test_slots_bound_what_runs(self) -> None:
        pool = self.make()
        try:
            for number in range(pool.slots):
                pool.submit(job(number, SLOW))
            _refuses(pool, job(99))
            assert set(self.collect(pool, pool.slots)) == set(range(pool.slots))
        finally:
            pool.close()
        _refuses(pool, job(99))

    def test_stop_drops_what_runs_and_the_pool_goes_on(self) -> None:
        pool = self.make()
        try:
            pool.submit(job(1, HANGS))
            pool.stop()
            assert pool.wait(0.1) == []
            for number in range(pool.slots):
                pool.submit(job(number + 10))
            assert set(self.collect(pool, pool.slots)) == set(range(10, 10 + pool.slots))
        finally:
            pool.close()

    def test_close_can_be_repeated_and_drops_what_runs(self) -> None:
        pool = self.make()
        pool.submit(job(1, HANGS))
        pool.close()
        pool.close()
        assert pool.wait(0.0) == []

    def test_a_worker_that_dies_is_lost_and_replaced(self) -> None:
        if not self.isolates:
            return
        pool = self.make()
        try:
            for round in range(2):
                pool.submit(job(round, DIES))
                outcome = self.collect(pool, 1)[round]
                assert outcome.lost
                assert outcome.error.startswith("the worker was lost")
            for number in range(pool.slots):
                pool.submit(job(number))
            assert all(o.measured for o in self.collect(pool, pool.slots).values())
        finally:
            pool.close()

    def test_a_worker_that_hangs_is_ended_at_the_time_limit(self) -> None:
        if not self.isolates:
            return
        pool = self.make()
        try:
            pool.submit(job(0, HANGS, timeout_s=1))
            outcome = self.collect(pool, 1)[0]
            assert not outcome.lost
            assert "did not end within 1 s" in outcome.error
            pool.submit(job(1))
            assert self.collect(pool, 1)[1].measured is not None
        finally:
            pool.close()


def _refuses(pool: Pool, extra: Job) -> None:
    try:
        pool.submit(extra)
    except PoolError:
        return
    raise AssertionError("a pool took more than it can")
