"""A search as a study of Optuna: what it says is what the search says, and Optuna's own tools take
it; it is there whole, or not at all."""

import math
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import optuna
import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState as Optuna

from formwright.search import METRICS, Result, SearchSpec, TrialState, to_study
from formwright.search.errors import SearchError
from formwright.search.propose.study_export import distribution_of
from formwright.search.space import SPACES, OneOf
from formwright.search.testing import a_trial

from .recorded import searched

SPEC = SearchSpec(
    space="hybrid_mamba",
    trials=24,
    sampler="random",
    rungs=2,
    keep=2,
    constraints=("params<=75",),
    target="eager",
    seed=1,
)
BEGUN = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)  # clocks go forward half an hour later
PLACES = ("memory", "database", "journal", "storage")


@pytest.fixture(scope="module")
def result():
    """With all that becomes of trials: succeeded, failed, stopped by the ladder, out of bounds."""
    return searched(SPEC)


@pytest.fixture(scope="module")
def one(result):
    """The same for one objective."""
    return replace(result, spec=replace(SPEC, objectives=("quality",)))


@pytest.fixture(params=PLACES)
def place(request, tmp_path):
    """Where a study may be written."""
    return {
        "memory": None,
        "database": f"sqlite:///{tmp_path / 'a.db'}",
        "journal": tmp_path / "a.log",
        "storage": optuna.storages.InMemoryStorage(),
    }[request.param]


def opened(place):
    """What another process would see."""
    if not isinstance(place, str):
        backend = optuna.storages.journal.JournalFileBackend(str(place))
        return optuna.storages.JournalStorage(backend)
    return optuna.storages.RDBStorage(place)


def test_a_study_says_what_the_search_says(result, place):
    study = to_study(result, place, "mine", attrs={"search": "s1"})

    assert study.study_name == "mine"
    assert [d.name.lower() for d in study.directions] == [m.direction for m in result.metrics]
    assert study.metric_names == list(SPEC.objectives)
    assert SearchSpec.from_json(study.user_attrs["spec"]) == SPEC
    assert (study.user_attrs["search"], study.user_attrs["params_from"]) == ("s1", "space")
    assert {trial.state for trial in result.trials} == {
        TrialState.SUCCEEDED,
        TrialState.FAILED,
        TrialState.PRUNED,
    }
    space = SPACES.load("hybrid_mamba")
    assert len(study.trials) == len(result.trials)
    for ours, theirs in zip(result.trials, study.trials, strict=True):
        assert theirs.number == theirs.user_attrs["number"] == ours.number
        assert theirs.user_attrs["state"] == ours.state.value
        assert theirs.user_attrs["fingerprint"] == ours.architecture.fingerprint()
        assert theirs.user_attrs.get("error", "") == ours.error
        assert theirs.params == space.active(ours.params)
        found = {name: theirs.user_attrs.get(f"metrics.{name}") for name in METRICS}
        assert {k: v for k, v in found.items() if v is not None} == ours.values
        if ours.state is TrialState.SUCCEEDED:
            assert theirs.state is Optuna.COMPLETE
            assert theirs.values == [ours.values[name] for name in SPEC.objectives]
            assert all(over <= 0 for over in theirs.constraints.values())
        if ours.state is TrialState.FAILED:
            assert (theirs.state, theirs.values) == (Optuna.FAIL, None)
        if ours.state is TrialState.PRUNED:
            assert theirs.state is Optuna.PRUNED
            bound = "params is" in ours.error
            assert (theirs.constraints.get("params<=75", 0) > 0) == bound
    assert {t.number for t in study.best_trials} == {t.number for t in result.front()}


def test_knobs_that_are_off_are_not_there(result):
    study = to_study(result)

    without = [trial for trial in study.trials if trial.params.get("attention") == 0]
    assert without
    assert not any("heads" in trial.params for trial in without)
    assert any("heads" in trial.params for trial in study.trials)


def test_rungs(one, result):
    """Optuna knows steps where there is one objective only."""
    single, several = to_study(one), to_study(result)

    climbed = [trial for trial in one.trials if trial.details.get("rungs")]
    assert {trial.state for trial in climbed} >= {TrialState.SUCCEEDED, TrialState.PRUNED}
    for trial in climbed:
        first = trial.details["rungs"][0]
        steps = single.trials[trial.number].intermediate_values
        assert steps[0] == first["quality"]
        assert (1 in steps) == (trial.state is TrialState.SUCCEEDED)
        assert several.trials[trial.number].user_attrs["rungs"][0] == first
    assert not any(trial.intermediate_values for trial in several.trials)
    assert single.best_trial.number == one.best().number


@pytest.mark.parametrize("sampler", ["TPESampler", "NSGAIISampler", "RandomSampler"])
@pytest.mark.parametrize("objectives", [1, 3])
def test_optuna_can_go_on(one, result, sampler, objectives):
    study = to_study(one if objectives == 1 else result)
    before = study.best_trials
    study.sampler = getattr(optuna.samplers, sampler)(seed=0)

    asked = study.ask(study.best_trials[0].distributions)
    study.tell(asked, [0.0, 1e9, 1e9][:objectives])

    assert asked.number == len(result.trials)
    assert study.best_trials == before


def test_optuna_can_look(one, result):
    study = to_study(result)
    frame = study.trials_dataframe(multi_index=True)
    assert list(frame[("number", "")]) == [trial.number for trial in result.trials]
    assert {("values", name) for name in SPEC.objectives} <= set(frame)

    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=4, max_depth=4, seed=0)
    found = optuna.importance.get_param_importances(to_study(one), evaluator=evaluator)
    assert {"width", "depth", "expand"} <= set(found)
    assert all(math.isfinite(value) for value in found.values())


@pytest.mark.parametrize(
    ("choices", "made"),
    [
        ((16, 32, 48), IntDistribution(16, 48, step=16)),
        ((1, 2), IntDistribution(1, 2)),
        ((0.0, 0.5, 1.0), FloatDistribution(0.0, 1.0, step=0.5)),
        ((0.1, 0.2, 0.3), CategoricalDistribution((0.1, 0.2, 0.3))),  # 0.1 + 2 * 0.1 is not 0.3
        ((16, 32, 64), CategoricalDistribution((16, 32, 64))),
        ((2, 1), CategoricalDistribution((2, 1))),
        ((3,), CategoricalDistribution((3,))),
        ((False, True), CategoricalDistribution((False, True))),
        (("rms", "layer"), CategoricalDistribution(("rms", "layer"))),
        ((1, True, 1.0), CategoricalDistribution(("1", "True", "1.0"))),
        ((1, 2.0, 3), CategoricalDistribution((1, 2.0, 3))),
    ],
    ids=str,
)
def test_distributions(choices, made):
    found = distribution_of(OneOf("knob", choices))
    assert found == made
    assert type(found) is type(made)  # an Optuna that knows us not can read it
    if not isinstance(made.to_external_repr(0), str):
        assert all(found._contains(found.to_internal_repr(choice)) for choice in choices)


def test_a_space_that_is_not_installed(result):
    spec = replace(SPEC, space="elsewhere")
    study = to_study(replace(result, spec=spec))

    assert study.user_attrs["params_from"] == "trials"
    for ours, theirs in zip(result.trials, study.trials, strict=True):
        assert theirs.params == ours.params
    widths = {trial.params["width"] for trial in result.trials}
    assert set(study.trials[0].distributions["width"].choices) == widths


def test_what_has_not_ended_runs(place):
    """So that numbers stay, and nobody takes up what waits."""
    trials = (a_trial(0), a_trial(1).started(), a_trial(2).started().failed("it diverged"))
    study = to_study(Result(SearchSpec(), trials), place)

    assert [t.state for t in study.trials] == [Optuna.RUNNING, Optuna.RUNNING, Optuna.FAIL]
    assert [t.user_attrs["state"] for t in study.trials] == ["PENDING", "RUNNING", "FAILED"]
    assert [t.datetime_complete is None for t in study.trials] == [True, True, False]
    assert study.ask().number == 3


def test_values_that_optuna_does_not_take(place):
    gone = {"quality": math.nan, "params": 5.0, "latency_ms": math.inf}
    trials = (
        replace(a_trial(0), state=TrialState.SUCCEEDED, values=gone),
        replace(a_trial(1), state=TrialState.SUCCEEDED, values={"params": 5.0}),
    )
    study = to_study(Result(SearchSpec(objectives=("quality", "params")), trials), place)

    assert [trial.state for trial in study.trials] == [Optuna.FAIL] * 2
    assert {t.user_attrs["error"] for t in study.trials} == {"nothing was measured of quality"}
    assert [t.user_attrs["metrics.params"] for t in study.trials] == [5.0, 5.0]
    assert "metrics.quality" not in study.trials[0].user_attrs


@pytest.mark.parametrize("place", ["database", "journal"], indirect=True)
def test_another_process_sees_the_same_as_in_memory(result, place):
    """What we write at once is what Optuna would have written trial by trial, times too."""
    times = {
        t.number: (BEGUN + timedelta(minutes=7 * t.number), BEGUN + timedelta(hours=t.number))
        for t in result.trials
    }
    to_study(result, place, "mine", times=times)
    memory = optuna.storages.InMemoryStorage()
    to_study(result, memory, "mine", times=times)
    theirs = f"{place}.theirs" if isinstance(place, str) else place.with_suffix(".theirs")
    copied = opened(theirs)
    optuna.copy_study(from_study_name="mine", from_storage=memory, to_storage=copied)

    seen, other = (
        optuna.load_study(study_name="mine", storage=storage) for storage in (opened(place), copied)
    )
    assert [plain(trial) for trial in seen.trials] == [plain(trial) for trial in other.trials]
    assert seen.directions == other.directions
    assert seen.metric_names == other.metric_names
    assert seen.user_attrs.keys() == other.user_attrs.keys()
    at = seen.trials[9].datetime_complete
    assert at.replace(tzinfo=None).astimezone(UTC) == times[9][1]


def plain(trial):
    """All of it but the place in the storage."""
    return {name.strip("_"): v for name, v in vars(trial).items() if name != "_trial_id"}


@pytest.mark.parametrize("place", ["database", "journal", "storage"], indirect=True)
def test_a_study_that_is_there(result, place):
    few = replace(result, trials=result.trials[:3])
    first = to_study(few, place, "mine", attrs={"search": "s1"})
    to_study(few, place, "beside")

    with pytest.raises(SearchError, match="there is a study 'mine' already"):
        to_study(result, place, "mine", attrs={"search": "s1"})
    with pytest.raises(SearchError, match="was not made of this search"):
        to_study(result, place, "mine", attrs={"search": "s2"}, replace=True)
    assert len(optuna.load_study(study_name="mine", storage=first._storage).trials) == 3
    changed = replace(result, spec=replace(SPEC, trials=30))
    again = to_study(changed, place, "mine", attrs={"search": "s1"}, replace=True)

    assert len(again.trials) == len(result.trials)
    names = optuna.get_all_study_names(again._storage)
    assert sorted(names) == ["beside", "mine"]
    assert len(optuna.load_study(study_name="beside", storage=again._storage).trials) == 3


@pytest.mark.parametrize("place", ["database", "journal", "storage"], indirect=True)
def test_a_study_of_somebody_else_stays(result, place):
    storage = place if not isinstance(place, str) and hasattr(place, "get_all_studies") else None
    storage = storage or opened(place)
    theirs = optuna.create_study(storage=storage, study_name="mine")
    theirs.tell(theirs.ask(), 1.0)

    with pytest.raises(SearchError, match="was not made of this search"):
        to_study(result, place, "mine", replace=True)
    assert len(optuna.load_study(study_name="mine", storage=storage).trials) == 1
    assert len(to_study(result, place, "ours").trials) == len(result.trials)
    assert len(optuna.load_study(study_name="mine", storage=storage).trials) == 1


@pytest.mark.parametrize("place", ["database", "journal", "storage"], indirect=True)
def test_no_half_of_a_study(result, place, tmp_path):
    bad = replace(result.trials[-1], error=object())  # which no storage keeps as text
    broken = replace(result, trials=(*result.trials[:-1], bad))

    for _ in range(2):
        if isinstance(place, optuna.storages.InMemoryStorage):
            place.create_new_trial = _fails_at(place.create_new_trial, 5)
        with pytest.raises(SearchError, match="the study cannot be written"):
            to_study(broken, place, "mine", attrs={"search": "s1"})
        assert list(tmp_path.iterdir()) == []
    if isinstance(place, optuna.storages.InMemoryStorage):
        assert place.get_all_studies() == []
        return
    to_study(result, place, "mine", attrs={"search": "s1"})
    with pytest.raises(SearchError, match="the study cannot be written"):
        to_study(broken, place, "mine", attrs={"search": "s1"}, replace=True)
    left = optuna.load_study(study_name="mine", storage=opened(place))
    assert len(left.trials) == len(result.trials)


def _fails_at(call, number):
    def failing(*arguments, **given):
        nonlocal number
        number -= 1
        if not number:
            raise OSError("no space is left")
        return call(*arguments, **given)

    return failing


def test_hostile_texts(result, place):
    text = "=1+1 '; DROP TABLE trials; -- \u0000 \ud800 größer \U0001f600"
    trials = (replace(a_trial(0), state=TrialState.FAILED, error=text, params={"=1; --": text}),)
    odd = replace(result, spec=replace(SPEC, space="elsewhere"), trials=trials)
    study = to_study(odd, place, "'; DROP TABLE studies; --", attrs={"display_name": text})

    assert study.trials[0].user_attrs["error"] == text
    assert study.user_attrs["display_name"] == text
    assert study.trials[0].params == {"=1; --": text}


@pytest.mark.parametrize("name", ["a\nb", "a\u0000", "x" * 513])
def test_what_no_study_is_called(result, name, place, tmp_path):
    with pytest.raises(SearchError, match="no name of a study"):
        to_study(result, place, name)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_something_else(result, tmp_path):
    text, database = tmp_path / "a.txt", tmp_path / "odd.log"
    text.write_text("number,state\n")
    with sqlite3.connect(database) as made:
        made.execute("CREATE TABLE t (x)")
    before = text.read_bytes()

    with pytest.raises(SearchError):
        to_study(result, text)
    assert text.read_bytes() == before
    assert to_study(result, database, "mine").study_name == "mine"  # whatever it is called
    with pytest.raises(SearchError, match="does not open"):
        to_study(result, tmp_path / "nowhere" / "a.db")
    with pytest.raises(SearchError, match=r"cannot be written|does not open"):
        to_study(result, tmp_path / "nowhere" / "a.log")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "odd.log"]
