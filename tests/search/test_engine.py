"""What a search does beside proposing and recording: the user's own candidates, constraints,
answers from earlier searches, budgets, the ladder and its audit, pause and resume."""

import time
from dataclasses import replace

import pytest

from formwright.search import (
    SPACES,
    TASKS,
    Measurement,
    MemoryLog,
    Result,
    SpecError,
    TrialState,
    drive,
)
from formwright.search.run.pool import Outcome, SerialPool
from formwright.search.run.state import State

from .engines import SPEC, Counting, evaluate, fingerprints, fingerprints_of, ran, values_of

PRUNED, SUCCEEDED = TrialState.PRUNED, TrialState.SUCCEEDED


def an_architecture(**changed):
    space, task = SPACES.load("metaformer"), TASKS.load("digits")
    genes = {gene.name: gene.choices[0] for gene in space.genes} | {"width": 64} | changed
    return space.decode(space.canonical(genes), task.signature)


def test_baselines_come_first_and_once():
    own = [an_architecture(depth=depth) for depth in (1, 2, 1)]
    spec = replace(SPEC, baselines=tuple(each.to_json() for each in own))
    trials = ran(spec).history()

    assert fingerprints(trials[:2]) == fingerprints_of(own[:2])
    assert [dict(trial.params) for trial in trials[:2]] == [{}, {}]
    assert all(trial.params for trial in trials[2:])
    assert len(trials) == spec.trials
    assert len(set(fingerprints(trials))) == spec.trials


def test_a_search_with_baselines_goes_on_from_its_log():
    spec = replace(SPEC, sampler="tpe", baselines=(an_architecture().to_json(),))
    whole = ran(spec)
    for cut in (1, 2, 5, 20):
        log = MemoryLog()
        log.append(*whole.events()[:cut])
        assert fingerprints(ran(spec, log).history()) == fingerprints(whole.history())


def test_a_baseline_for_another_task_is_refused():
    from formwright.search import ArchSpec

    other = ArchSpec.of_images((3, 4, 4), 2, 2, 16, ())
    with pytest.raises(SpecError, match=r"baselines\[0\]: it is made for .* the task has"):
        ran(replace(SPEC, baselines=(other.to_json(),)))
    with pytest.raises(SpecError, match=r"baselines\[0\]"):
        replace(SPEC, baselines=("{}",))


def test_whoever_breaks_a_constraint_is_on_no_front():
    spec = replace(SPEC, constraints=("params<=40", "quality>=20"), trials=20)
    log = ran(spec)

    states = {trial.state for trial in log.history()}
    assert states == {PRUNED, SUCCEEDED}
    for trial in log.history():
        kept = trial.values["params"] <= 40 and trial.values["quality"] >= 20
        assert (trial.state is SUCCEEDED) is kept
        assert bool(trial.error) is not kept
    assert any("params is" in trial.error for trial in log.history())
    assert any("quality is" in trial.error for trial in log.history())


def test_what_costs_no_training_does_not_count():
    """Whoever stops at a constraint before the training is not paid for; but there is an end."""

    def stops(evaluation):
        values = values_of(evaluation.architecture)
        if values["params"] > 20:
            return Measurement({"params": values["params"]}, broken="too many")
        return evaluate(evaluation)

    log = ran(replace(SPEC, trials=5), pool=SerialPool(stops))
    states = [trial.state for trial in log.history()]

    assert states.count(SUCCEEDED) == 5
    assert states.count(PRUNED) > 5
    assert {trial.error for trial in log.history() if trial.state is PRUNED} == {"too many"}

    none = ran(replace(SPEC, trials=2), pool=SerialPool(lambda e: Measurement({}, broken="no")))
    assert {trial.state for trial in none.history()} == {PRUNED}
    assert len(none.history()) == 120


def test_an_earlier_search_answers():
    first, pool = Result(SPEC, tuple(ran(SPEC).history())), Counting()
    log = ran(SPEC, MemoryLog([first]), pool)

    assert fingerprints(log.history()) == fingerprints(first.trials)
    # the first is measured: only then it is known on which machine
    assert fingerprints_of([e.architecture for e in pool.given]) == fingerprints(first.trials[:1])
    for trial, before in zip(log.history(), first.trials, strict=True):
        assert trial.values == before.values
    assert log.history()[3].details["answered"] == "search 0, trial 3"
    assert [t.state for t in log.events() if t.number == 3] == ["PENDING", "RUNNING", "SUCCEEDED"]


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"steps": 5}, {"rates": (1e-3,)}, {"batch": 8}, {"budget": "9 tokens"}],
    ids=str,
)
def test_another_recipe_is_no_answer(other):
    spec, pool = replace(SPEC, trials=4), Counting()
    first = Result(replace(spec, **other), tuple(ran(replace(spec, **other)).history()))
    ran(spec, MemoryLog([first]), pool)

    assert len(pool.given) == 4


def test_another_machine_or_a_missing_metric_is_no_answer():
    spec = replace(SPEC, trials=4)
    for change in ("machine", "metric"):
        first = ran(spec).history()
        if change == "machine":
            other = {"machine": {"fingerprint": "another"}}
            first = [replace(trial, details={**trial.details, **other}) for trial in first]
        else:
            first = [replace(trial, values={"quality": 1.0}) for trial in first]
        pool = Counting()
        ran(spec, MemoryLog([Result(spec, tuple(first))]), pool)
        assert len(pool.given) == 4


def test_an_answer_is_of_the_whole_training_and_climbs_no_ladder():
    first = Result(SPEC, tuple(ran(SPEC).history()))
    spec, pool = replace(SPEC, rungs=3, constraints=("quality>=20",)), Counting()
    trials = ran(spec, MemoryLog([first]), pool).history()

    measured = set(fingerprints_of([e.architecture for e in pool.given]))
    assert not measured & set(fingerprints(first.trials[1:]))
    for trial, before in zip(trials[1:], first.trials[1:], strict=False):
        assert trial.values == before.values
        assert trial.state is (SUCCEEDED if before.values["quality"] >= 20 else PRUNED)
        assert trial.rung == 0


def test_an_answer_from_other_data_is_none():
    first = ran(SPEC).history()
    other = {"data": {"name": "digits", "data": "another"}}
    first = [replace(trial, details={**trial.details, **other}) for trial in first]
    pool = Counting()
    ran(SPEC, MemoryLog([Result(SPEC, tuple(first))]), pool)

    assert len(pool.given) == SPEC.trials


def test_what_failed_and_what_was_lost_is_paid_for():
    class Failing(SerialPool):
        def wait(self, timeout_s):
            job, self._job = self._job, None
            if job is None:
                return []
            lost = job.number % 2 == 0 and job.attempt == 1
            return [Outcome(job, error="no", lost=lost)]

    log = MemoryLog()
    drive(replace(SPEC, trials=4), Failing(evaluate), log)
    spent = [trial.details["seconds"] for trial in log.history()]

    assert [sorted(each) for each in spent] == [["failed", "lost"], ["failed"]] * 2
    assert State(SPEC).tally._seconds == 0.0
    whole = State(SPEC)
    for event in log.events():
        whole.tell(event)
    # in the order of events; floats that are added in another one differ
    assert whole.tally._seconds == pytest.approx(sum(sum(each.values()) for each in spent))


def test_evaluators_time_and_operations_are_budgets():
    for bound in ({"seconds": 9}, {"flops": 450.0}):  # each takes 2 s and 100 operations
        *trials, ahead = ran(replace(SPEC, **bound)).history()
        assert [trial.state for trial in trials] == [SUCCEEDED] * 5
        assert ahead.error == "the budget was spent before"
        assert ahead.state is PRUNED
    assert len(ran(replace(SPEC, seconds=1000, flops=1e9)).history()) == SPEC.trials


def test_budgets_bound_who_waits_on_the_ladder_too():
    spec = replace(SPEC, trials=60, rungs=3, seconds=19, audit=1.0)
    pool = Counting()
    trials = ran(spec, pool=pool).history()

    assert len(pool.given) == 10  # evaluations of 2 s
    assert all(trial.state.final for trial in trials)
    assert any(trial.error == "the budget was spent before" for trial in trials)
    assert any(trial.error.startswith("stopped on rung") for trial in trials)


def test_a_search_that_has_ended_has_ended():
    """However it wants no quality: whoever was stopped on the ladder is not free."""
    spec = replace(SPEC, objectives=("latency_ms", "params"), latency="layers", audit=0.5)
    log = ran(spec)
    before = log.events()
    ran(spec, log)

    assert log.events() == before
    assert len(log.history()) == spec.trials


def test_a_result_is_kept_though_the_search_is_stopped_meanwhile():
    class Stopping(MemoryLog):
        def wanted(self):  # as of a service that lets go, and still takes what there is
            return not pool.given

    class Slow(Counting):
        def wait(self, timeout_s):
            time.sleep(0.3)  # so that it is asked again whether the search is wanted
            return super().wait(timeout_s)

    pool, log = Slow(), Stopping()
    drive(SPEC, pool, log)
    assert len(pool.given) == 1
    assert log.history()[0].state is SUCCEEDED


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_a_search_that_is_answered_is_the_same_search(sampler):
    spec, pool = replace(SPEC, sampler=sampler, trials=16), Counting()
    first = ran(spec).history()
    again = ran(spec, MemoryLog([Result(spec, tuple(first))]), pool).history()

    assert fingerprints(again) == fingerprints(first)
    assert len(pool.given) == 1


@pytest.mark.parametrize(
    "measured",
    [
        Measurement({"quality": float("nan"), "latency_ms": 1.0, "params": 1.0}),
        Measurement({"quality": "good"}),
        Measurement({"quality": 1.0}, {"who": object()}),
        Measurement({"quality": 1.0}, {"seconds": 3}),
        Measurement({"quality": 1.0}, {"training_flops": None}),
        Measurement({"quality": 1.0}, {"undecided": 7}),
        Measurement({"quality": 1.0}, {"loss": float("inf")}),
    ],
    ids=["nan", "text", "object", "seconds", "flops", "undecided", "infinite"],
)
def test_a_malformed_measurement_fails_its_trial_only(measured):
    def sometimes(evaluation):
        good = evaluate(evaluation)
        return measured if good.values["params"] < 40 else good

    spec = replace(SPEC, constraints=("quality>=0",), rungs=2)
    trials = ran(spec, pool=SerialPool(sometimes)).history()

    assert {trial.state for trial in trials} >= {SUCCEEDED, TrialState.FAILED}
    assert len(trials) == SPEC.trials


def test_a_paused_search_goes_on():
    log, seen = MemoryLog(), []

    def pauses(trial):
        seen.append(trial)
        if trial.number == 3 and trial.state is TrialState.RUNNING:
            log.pause()

    drive(SPEC, Counting(), log, pauses)
    states = [trial.state for trial in log.history()]
    assert states == [SUCCEEDED] * 3 + [TrialState.RUNNING]
    log.resume()
    drive(SPEC, Counting(), log)
    assert [trial.state for trial in log.history()] == [SUCCEEDED] * SPEC.trials
    assert log.history()[3].attempt == 2
    assert fingerprints(log.history()) == fingerprints(ran(SPEC).history())
