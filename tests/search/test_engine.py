"""What a search does beside proposing and recording: the user's own candidates, constraints,
answers from earlier searches, budgets, the ladder and its audit, pause and resume."""

from dataclasses import replace

import pytest

from formwright.search import (
    METRICS,
    SPACES,
    TASKS,
    Measurement,
    MemoryLog,
    Result,
    SearchSpec,
    SpecError,
    TrialState,
    drive,
    pareto,
)
from formwright.search.run.ladder import rungs_of
from formwright.search.run.pool import SerialPool

SPEC = SearchSpec(trials=12, sampler="random", target="eager", knobs=("width=16|32",))
PRUNED, SUCCEEDED = TrialState.PRUNED, TrialState.SUCCEEDED


def values_of(architecture, until=1.0):
    """The better the larger, after any training: a rung orders as the whole does."""
    number = int(architecture.fingerprint()[3:11], 16)
    quality = until * (1 + number % 97)
    return {"quality": quality, "latency_ms": number % 89 + 1.0, "params": number % 83}


def evaluate(evaluation):
    values = values_of(evaluation.architecture, evaluation.until)
    details = {"seconds": {"train": 2.0}, "training_flops": 100, "machine": {"fingerprint": "m"}}
    return Measurement(values, details)


class Counting(SerialPool):
    """Keeps the evaluations that it was given."""

    def __init__(self):
        super().__init__(evaluate)
        self.given = []

    def submit(self, job):
        self.given.append(job.evaluation)
        super().submit(job)


def ran(spec, log=None, pool=None):
    log = MemoryLog() if log is None else log
    drive(spec, pool or Counting(), log)
    return log


def fingerprints(trials):
    return [trial.architecture.fingerprint() for trial in trials]


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


def fingerprints_of(architectures):
    from formwright.search import canonical

    return [canonical(each).fingerprint() for each in architectures]


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


def test_evaluators_time_and_operations_are_budgets():
    assert len(ran(replace(SPEC, seconds=9)).history()) == 6  # of 2 s each; one is prepared ahead
    assert len(ran(replace(SPEC, flops=450.0)).history()) == 6
    assert len(ran(replace(SPEC, seconds=1000, flops=1e9)).history()) == SPEC.trials


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


# the ladder


def test_the_rungs_of_a_ladder():
    shares = [round(rung.until, 4) for rung in rungs_of(replace(SPEC, rungs=3, keep=3))]
    assert shares == [0.1111, 0.3333, 1.0]
    first, *others = rungs_of(replace(SPEC, rungs=2, constraints=("flops<=9",)))
    assert first.metrics == ("quality", "latency_ms", "params", "flops")
    assert [rung.metrics for rung in others] == [("quality",)]
    assert len(rungs_of(replace(SPEC, objectives=("params", "flops"), rungs=4))) == 1


def test_predicted_latencies_are_measured_at_the_end():
    *trained, last = rungs_of(replace(SPEC, rungs=2, latency="layers"))
    assert {rung.latency for rung in trained} == {"layers"}
    assert (last.latency, last.metrics, last.until) == ("whole", ("latency_ms",), 1.0)
    assert len(rungs_of(replace(SPEC, objectives=("quality", "params"), latency="layers"))) == 1


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
    assert best.details["training_flops"] == 300


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
