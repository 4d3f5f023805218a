"""The search loop: budget, no candidate twice, retries, cancellation, going on from a log."""

from dataclasses import replace

import pytest

from formwright.search import (
    Fenced,
    Measurement,
    MemoryLog,
    SearchSpec,
    Trial,
    TrialState,
    UnknownNameError,
    drive,
)
from formwright.search.propose import Sampler
from formwright.search.run.candidates import Candidates
from formwright.search.run.pool import Outcome, SerialPool
from formwright.search.space import SPACES, Signature

SPEC = SearchSpec(trials=15, target="eager")


def evaluate(evaluation):
    """A pure function of the architecture: no measuring, so that runs can be compared."""
    number = int(evaluation.architecture.fingerprint()[3:11], 16)
    values = {"quality": number % 97 / 97, "latency_ms": number % 89 + 1.0, "params": number % 83}
    return Measurement(values)


class Losing(SerialPool):
    """A pool whose worker dies on chosen (number, attempt) pairs."""

    def __init__(self, dies):
        super().__init__(evaluate)
        self.dies, self.seen = dies, []

    def wait(self, timeout_s):
        if (job := self._job) is None:
            return []
        self.seen.append((job.number, job.attempt))
        if (job.number, job.attempt) in self.dies:
            self.stop()
            return [Outcome(job, error="died", lost=True)]
        return super().wait(timeout_s)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_spends_the_budget_on_distinct_architectures(sampler):
    log, seen = MemoryLog(), []

    drive(replace(SPEC, sampler=sampler), SerialPool(evaluate), log, seen.append)

    trials = log.history()
    assert [trial.number for trial in trials] == list(range(15))
    assert {trial.state for trial in trials} == {TrialState.SUCCEEDED}
    assert len({trial.architecture.fingerprint() for trial in trials}) == 15
    assert [t.state for t in seen if t.number == 3] == ["PENDING", "RUNNING", "SUCCEEDED"]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_the_same_seed_finds_the_same(sampler):
    logs = [MemoryLog() for _ in range(3)]
    for log, seed in zip(logs, (1, 1, 2), strict=True):
        drive(replace(SPEC, sampler=sampler, seed=seed), SerialPool(evaluate), log)

    assert logs[0].history() == logs[1].history()
    assert logs[0].history() != logs[2].history()


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_goes_on_as_if_nothing_had_happened(sampler):
    spec, whole = replace(SPEC, sampler=sampler), MemoryLog()
    drive(spec, SerialPool(evaluate), whole)

    for cut in (1, 7, 12):
        log = MemoryLog()
        drive(replace(spec, trials=cut), SerialPool(evaluate), log)
        last = Trial(cut, *_genes(whole, cut))
        log.append(last)
        log.append(last.started())  # and then whoever ran it was killed
        drive(spec, SerialPool(evaluate), log)

        assert log.history()[:cut] == whole.history()[:cut]
        assert log.history()[cut].attempt == 2
        values = [trial.values for trial in log.history()]
        assert values == [trial.values for trial in whole.history()]


def _genes(log, number):
    trial = log.history()[number]
    return trial.params, trial.architecture


def test_a_lost_worker_costs_an_attempt_and_no_trial():
    pool, log = Losing({(2, 1), (4, 1), (4, 2), (4, 3)}), MemoryLog()

    drive(replace(SPEC, trials=6), pool, log)

    states = {trial.number: (trial.state, trial.attempt) for trial in log.history()}
    assert states[2] == (TrialState.SUCCEEDED, 2)
    assert states[4] == (TrialState.FAILED, 3)
    assert "given up in attempt 3: died" in log.history()[4].error
    assert len(set(pool.seen)) == len(pool.seen)


def test_a_candidate_that_fails_does_not_end_the_search():
    def sometimes(evaluation):
        if dict(evaluation.architecture.stem.settings)["patch"] == 2:
            raise RuntimeError("cannot\n  do this")
        return evaluate(evaluation)

    log = MemoryLog()
    drive(SPEC, SerialPool(sometimes), log)

    failed = [trial for trial in log.history() if trial.state is TrialState.FAILED]
    assert len(log.history()) == 15
    assert failed
    assert {trial.error for trial in failed} == {"RuntimeError: cannot do this"}


def test_a_cancelled_search_ends_and_prunes():
    log = MemoryLog()

    def cancels(trial):
        if trial.number == 4 and trial.state is TrialState.RUNNING:
            log.cancel()

    drive(SPEC, SerialPool(evaluate), log, cancels)

    assert [t.state for t in log.history()] == ["SUCCEEDED"] * 4 + ["PRUNED"]


def test_a_fenced_log_stops_whoever_is_late():
    class Taken(MemoryLog):
        def append(self, *trials):
            if any(trial.number == 2 for trial in trials):
                raise Fenced("somebody else has the lease")
            super().append(*trials)

    log = Taken()
    with pytest.raises(Fenced):
        drive(SPEC, SerialPool(evaluate), log)
    assert len(log.history()) == 2


def test_a_small_space_is_searched_to_its_end(monkeypatch):
    whole = SPACES.load("metaformer")
    keep = {"norm": ("rms",), "depth": (1,), "mixer0": ("pool", "conv"), "patch": (2,)}
    space = whole.restricted(**{g.name: keep.get(g.name, g.choices[:1]) for g in whole.genes})

    class Stubborn:
        def ask(self, number, draw):
            return {gene.name: gene.choices[0] for gene in space.genes}

        def tell(self, trial):
            pass

    sampler = Sampler("stubborn", lambda *given: Stubborn())
    candidates = Candidates(space, Signature.of_images((1, 8, 8), 10), sampler, SPEC)
    for _ in range(2):
        trial = candidates.propose()
        candidates.tell(trial)
    assert candidates.propose() is None


def test_knobs_that_are_off_do_not_make_another_candidate():
    space = SPACES.load("metaformer")
    genes = {gene.name: gene.choices[0] for gene in space.genes}
    other = genes | {"mixer3": "mamba2", "ratio2": 4}

    assert genes["depth"] == 1
    assert space.canonical(other) == space.canonical(genes)


def test_names_are_checked_before_anything_is_written():
    log = MemoryLog()
    with pytest.raises(UnknownNameError, match="Did you mean 'metaformer'"):
        drive(replace(SPEC, space="metaforrmer"), SerialPool(evaluate), log)
    assert log.history() == []
