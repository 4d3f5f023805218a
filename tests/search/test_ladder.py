"""The ladder: who goes on after a part of the training, who is stopped, and what an audit shows."""

from dataclasses import replace

import pytest

from formwright.search import METRICS, Measurement, TrialState, pareto
from formwright.search.run.ladder import planned
from formwright.search.run.pool import SerialPool

from .engines import SPEC, Counting, evaluate, fingerprints, fingerprints_of, ran, values_of

PRUNED, SUCCEEDED = TrialState.PRUNED, TrialState.SUCCEEDED


def test_the_rungs_of_a_ladder():
    shares = [round(rung.until, 4) for rung in planned(replace(SPEC, rungs=3, keep=3))]
    assert shares == [0.1111, 0.3333, 1.0]
    first, *others = planned(replace(SPEC, rungs=2, constraints=("flops<=9",)))
    assert first.metrics == ("quality", "latency_ms", "params", "flops")
    assert [rung.metrics for rung in others] == [("quality",)]
    assert len(planned(replace(SPEC, objectives=("params", "flops"), rungs=4))) == 1


def test_predicted_latencies_are_measured_at_the_end():
    *trained, last = planned(replace(SPEC, rungs=2, latency="layers"))
    assert {rung.latency for rung in trained} == {"layers"}
    assert (last.latency, last.metrics, last.until) == ("whole", ("latency_ms",), 1.0)
    assert len(planned(replace(SPEC, objectives=("quality", "params"), latency="layers"))) == 1


LADDER = replace(SPEC, trials=40, rungs=3, keep=3, knobs=())


def front_of(trials):
    metrics = [METRICS[name] for name in SPEC.objectives]
    return set(fingerprints(pareto([t for t in trials if t.state is SUCCEEDED], metrics)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sampler", ["random", "nsga2"])
def test_the_ladder_loses_no_member_of_the_front(sampler, seed):
    """Where rungs order as the whole does, all of the front of what was proposed is found."""
    pool, spec = Counting(), replace(LADDER, seed=seed, sampler=sampler)
    trials = ran(spec, pool=pool).history()
    metrics = [METRICS[name] for name in SPEC.objectives]
    alike = [replace(t, values=values_of(t.architecture)) for t in trials]

    assert front_of(trials) == set(fingerprints(pareto(alike, metrics)))
    assert {trial.state for trial in trials} == {PRUNED, SUCCEEDED}
    spent = sum(share_of(given) for given in pool.given)
    assert spent < 0.7 * spec.trials
    for trial in trials:
        if trial.state is PRUNED:
            assert trial.error.startswith(f"stopped on rung {trial.rung - 1}, behind ")


def share_of(evaluation):
    """What a job adds to the training that was there."""
    return evaluation.until - (evaluation.until / 3 if evaluation.until > 1 / 9 else 0)


def test_a_prediction_decides_no_constraint_after_its_own_stage():
    def predicts(evaluation):
        values = {"quality": 1.0 + evaluation.until, "latency_ms": 1.1, "params": 5}
        if evaluation.latency == "whole":
            return Measurement({"latency_ms": 0.9})
        details = {"undecided": ["latency_ms"]} if evaluation.until < 1 / 2 else {}
        return Measurement({name: values[name] for name in evaluation.metrics}, details)

    spec = replace(SPEC, trials=1, rungs=2, latency="layers", constraints=("latency_ms<=1.0",))
    (trial,) = ran(spec, pool=SerialPool(predicts)).history()

    assert (trial.state, trial.rung) == (SUCCEEDED, 2)
    assert trial.values["latency_ms"] == 0.9


def test_the_machine_of_a_trial_is_the_one_that_timed_it():
    def elsewhere(evaluation):
        found = evaluate(evaluation)
        values = {name: found.values[name] for name in evaluation.metrics}
        machine = {"fingerprint": "first" if "latency_ms" in values else "second"}
        return Measurement(values, {**found.details, "machine": machine})

    trials = ran(replace(SPEC, rungs=2, trials=6), pool=SerialPool(elsewhere)).history()
    assert {trial.details["machine"]["fingerprint"] for trial in trials} == {"first"}


def test_nobody_is_stopped_who_is_not_dominated():
    trials = ran(LADDER).history()
    metrics = [METRICS[name] for name in SPEC.objectives]
    for trial in trials:
        if trial.state is PRUNED:
            of = [replace(t, values=values_of(t.architecture)) for t in trials]
            front = fingerprints(pareto(of, metrics))
            assert trial.architecture.fingerprint() not in front


def test_trainings_go_on_where_they_stopped():
    pool = Counting()
    trials = ran(LADDER, pool=pool).history()
    best = next(trial for trial in trials if trial.state is SUCCEEDED)
    of = [e for e in pool.given if fingerprints_of([e.architecture]) == fingerprints([best])]

    assert [round(e.until, 3) for e in of] == [0.111, 0.333, 1.0]
    assert len({e.seed for e in of}) == 1
    assert [rung["quality"] for rung in best.details["rungs"]] == pytest.approx(
        [best.values["quality"] / 9, best.values["quality"] / 3]
    )
    assert best.details["seconds"] == {"train": 6.0}
    assert best.details["training_flops"] == 100  # of all of it


def test_some_of_those_who_were_stopped_are_audited():
    trials = ran(replace(LADDER, audit=0.5)).history()
    plain = ran(LADDER).history()
    audited = [trial for trial in trials if "audited" in trial.details]

    assert fingerprints(trials) == fingerprints(plain)
    assert audited
    assert {trial.state for trial in audited} == {SUCCEEDED}
    stopped = {f for f, t in zip(fingerprints(plain), plain, strict=True) if t.state is PRUNED}
    assert set(fingerprints(audited)) < stopped
    left = {f for f, t in zip(fingerprints(trials), trials, strict=True) if t.state is PRUNED}
    assert left == stopped - set(fingerprints(audited))
    everybody = ran(replace(LADDER, audit=1.0)).history()
    assert {trial.state for trial in everybody} == {SUCCEEDED}
