"""What a result answers, and that a file brings it back whole."""

import json
from dataclasses import replace

import pytest

from formwright.search import Result, SpecError, TrialState
from formwright.search.front import joins, machine_of, pareto
from formwright.search.run.log import answered
from formwright.search.span import Span
from formwright.search.told import is_free

from .recorded import SPEC, evaluate, searched


@pytest.fixture(scope="module")
def result():
    return searched(replace(SPEC, rungs=2, audit=0.5, constraints=("params<=70",)))


def test_the_file_brings_it_back(result, tmp_path):
    path = result.save(tmp_path / "result.json")
    found = Result.load(path)

    assert found == result
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
    kinds = [{n: type(v) for n, v in t.params.items()} for t in found.trials]
    assert kinds == [{n: type(v) for n, v in t.params.items()} for t in result.trials]
    assert found.front() == result.front()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda d: d.update(schema=9), "schema: wanted 1, got 9"),
        (lambda d: d.pop("trials"), "missing: trials"),
        (lambda d: d["spec"].update(trails=3), "spec: unknown field 'trails'"),
        (
            lambda d: d["trials"][1].update(state="DONE"),
            r"trials\[1\].state: wanted one of PENDING",
        ),
        (lambda d: d["trials"][1].update(rung="0"), r"trials\[1\].rung: wanted int"),
        (lambda d: d["trials"][2].pop("error"), r"trials\[2\]: missing: error"),
        (lambda d: d["trials"][0]["architecture"].pop("patch"), r"trials\[0\].architecture"),
        (lambda d: d["trials"][0].update(number=True), r"trials\[0\].number: wanted int"),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_place(result, tmp_path, spoil, said):
    data = json.loads(result.to_json())
    spoil(data)
    (tmp_path / "r.json").write_text(json.dumps(data))

    with pytest.raises(SpecError, match=said):
        Result.load(tmp_path / "r.json")
    with pytest.raises(SpecError, match="not JSON"):
        Result.from_json("{")


def test_states_and_reasons(result):
    assert sum(result.states.values()) == len(result.trials)
    (broken, count), *_ = result.by_reason(TrialState.PRUNED)
    pruned = [t.error for t in result.trials if t.state is TrialState.PRUNED]
    assert count == max(
        sum("params is" in error for error in pruned),
        sum("stopped on rung 0" in error for error in pruned),
    )
    assert broken == "params is …, not <= 70" or broken.startswith("stopped on rung 0")


def test_growth_ends_at_the_hypervolume(result):
    steps = result.growth()

    counted = [t for t in result.trials if not is_free(t)]
    assert [step.evaluations for step in steps] == list(range(1, len(counted) + 1))
    assert steps[-1].hypervolume == pytest.approx(result.hypervolume())
    assert [s.hypervolume for s in steps] == sorted(s.hypervolume for s in steps)
    spent = sum(sum(t.details.get("seconds", {}).values()) for t in result.trials)
    assert steps[-1].seconds == pytest.approx(spent)
    assert Result(SPEC, ()).growth() == []
    assert Result(SPEC, ()).hypervolume() == 0.0


def test_what_a_stored_result_answered_cost_nothing():
    result = searched()
    old = result.succeeded[0]
    fresh = replace(old, state=TrialState.RUNNING, values={}, details={})
    again = fresh.succeeded(answered(old, "search 1, trial 0"))

    assert Result(SPEC, (old,)).growth()[0].seconds == 2.5
    assert Result(SPEC, (again,)).growth()[0].seconds == 0.0


def test_shares_of_a_box():
    def trial(quality, latency):
        values = {"quality": quality, "latency_ms": latency}
        return replace(searched().succeeded[0], values=values)

    spec = replace(SPEC, objectives=("quality", "latency_ms"))
    low, high = trial(0.0, 1.0), trial(1.0, 5.0)
    result = Result(spec, (low, high))
    span = result.span()

    # each dominates a strip of the box of 1.1 x 1.1, a tenth of it beyond the worst value
    strips = 1.1 * 0.1 + 1.1 * 0.1 - 0.1 * 0.1
    assert result.hypervolume() == pytest.approx(strips / 1.21)
    assert span.share([trial(1.0, 1.0)]) == pytest.approx(1.0)
    assert span.share([trial(2.0, 0.5)]) == pytest.approx(1.0)  # outside counts as at the edge
    assert span.share([trial(-9.0, 1.0)]) == 0.0
    assert Span.of([], result.metrics).share([]) == 0.0


def test_latencies_of_several_machines_are_not_mixed():
    def on_two(evaluation):
        measured = evaluate(evaluation)
        name = "b" if measured.values["params"] > 60 else "a"
        return replace(measured, details={**measured.details, "machine": {"fingerprint": name}})

    result = searched(SPEC, on_two)

    assert result.machines == ["a", "b"]
    with pytest.raises(SpecError, match="different machines"):
        result.front()
    assert {t.details["machine"]["fingerprint"] for t in result.front(machine="b")} == {"b"}
    for name in "ab":
        alone = Result(SPEC, tuple(t for t in result.succeeded if machine_of(t) == name))
        assert result.span(name) == alone.span() != Span.of(result.succeeded, result.metrics)
        assert result.hypervolume(machine=name) == pytest.approx(alone.hypervolume())
        last = result.growth(machine=name)[-1].hypervolume
        assert last == pytest.approx(alone.hypervolume())
    with pytest.raises(SpecError, match="different machines"):
        result.span()
    assert searched(replace(SPEC, objectives=("quality", "params")), on_two).machines == [""]


def test_a_front_that_is_joined_is_that_of_all(result):
    """Whoever joins it, in any order; of equals all stay."""
    trials = [*result.succeeded, *result.succeeded[:3], *result.trials]
    front, seen = [], []
    for trial in trials:
        seen.append(trial)
        joined = joins(trial, front, result.metrics)
        assert front == pareto(seen, result.metrics)
        assert joined == any(member is trial for member in front[::-1])


def test_a_box_grows_with_what_it_is_to_hold(result):
    first, *others = result.succeeded
    span = Span.of([first], result.metrics)
    for trial in others:
        span = span.widened(trial)
    assert span == result.span() == span.widened(replace(first, values={"quality": 9.0}))
