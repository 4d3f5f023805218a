"""Whoever goes on with a log does what whoever wrote it would have done, wherever it was cut."""

import random
from dataclasses import replace

import pytest

from formwright.search import (
    SAMPLERS,
    Measurement,
    MemoryLog,
    SearchSpec,
    SpecError,
    TrialState,
    drive,
)
from formwright.search.run.pool import SerialPool, attempt
from formwright.search.run.state import State
from formwright.search.run.tally import DRIVERS, ORPHANED

SPEC = SearchSpec(trials=14, target="eager", knobs=("width=16|32",))
LADDER = replace(SPEC, rungs=3, keep=2, audit=0.3)


def evaluate(evaluation):
    """A pure function of what is to be evaluated."""
    number = int(evaluation.architecture.fingerprint()[3:11], 16)
    quality = number % 97 / 97 - (1 - evaluation.until) * (number % 7) / 7
    return Measurement({"quality": quality, "latency_ms": number % 89 + 1.0, "params": number % 83})


class Shuffled:
    """Three workers in this process, which end in the order of a die."""

    slots = 3

    def __init__(self, seed):
        self.rng, self.jobs = random.Random(seed), []

    def submit(self, job):
        self.jobs.append(job)

    def wait(self, timeout_s):
        ended = [job for job in self.jobs if self.rng.random() < 0.4]
        if not ended and not timeout_s:
            return []
        ended = ended or self.jobs[:1]
        self.jobs = [job for job in self.jobs if job not in ended]
        return [attempt(evaluate, job) for job in ended]

    def stop(self):
        self.jobs = []


def ran(spec, pool=None, log=None):
    log = MemoryLog() if log is None else log
    drive(spec, pool or SerialPool(evaluate), log)
    return log


def outcome(log):
    return [(t.params, t.architecture, t.state, t.rung, dict(t.values)) for t in log.history()]


def samplers(but=()):
    return pytest.mark.parametrize("sampler", [n for n in SAMPLERS.names() if n not in but])


@samplers(but=["exact"])
@pytest.mark.parametrize("spec", [SPEC, LADDER], ids=["plain", "ladder"])
def test_one_evaluator_cut_anywhere_finds_the_same(spec, sampler):
    spec = replace(spec, sampler=sampler)
    whole = ran(spec)
    events = whole.events()

    assert outcome(ran(spec)) == outcome(whole)
    for cut in random.Random(sampler).sample(range(1, len(events)), 12):
        log = MemoryLog()
        log.append(*events[:cut])
        assert outcome(ran(spec, log=log)) == outcome(whole), f"cut after {cut} events"


@samplers(but=["exact"])
@pytest.mark.parametrize("seed", range(2))
def test_the_recorded_order_gives_the_same_suggestions(sampler, seed):
    spec = replace(LADDER, sampler=sampler)
    log, again = ran(spec, Shuffled(seed)), State(spec)
    new = 0
    for event in log.events():
        if event.state is TrialState.PENDING and event.number == new:
            proposed = again.propose()
            assert (proposed.params, proposed.architecture) == (event.params, event.architecture)
            new += 1
        again.tell(event)
    assert new == spec.trials
    assert again.propose() is None


def test_the_driver_may_be_lost_more_often_than_a_worker():
    log = MemoryLog()
    for _ in range(DRIVERS):
        with pytest.raises(KeyboardInterrupt):
            drive(replace(SPEC, trials=1, attempts=1), Dying(), log)
    lost = log.history()[0]
    drive(replace(SPEC, trials=1, attempts=1), SerialPool(evaluate), log)

    assert (lost.state, lost.attempt) == (TrialState.RUNNING, DRIVERS)
    assert log.history()[0].state is TrialState.FAILED
    assert log.history()[0].error == f"given up in attempt {DRIVERS}: {ORPHANED}"


class Dying(SerialPool):
    """A driver that ends without a word once its job has begun."""

    def __init__(self):
        super().__init__(evaluate)

    def wait(self, timeout_s):
        if self._job is not None:
            raise KeyboardInterrupt
        return []


def test_a_log_of_another_space_is_refused():
    log = ran(replace(SPEC, trials=2, knobs=()))
    with pytest.raises(SpecError, match=r"not one of|not of the space|not exactly the genes"):
        ran(replace(SPEC, space="matformer", knobs=()), log=log)
