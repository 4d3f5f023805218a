"""Hypervolumes of many objectives: an estimate near the truth that says what it is."""

import random
from functools import cache

import pytest

from formwright.search import METRICS, Measurement, Result, SearchSpec, Trial, ranking_fidelity
from formwright.search import cost as costs
from formwright.search.hypervolume import hypervolume
from formwright.search.sampled import POINTS, Sampled, standard_error
from formwright.search.show.board import Board
from formwright.search.show.findings import Findings
from formwright.search.show.growths import growths, shuffled
from formwright.search.show.summary import as_text
from formwright.search.span import Span

from .recorded import searched

NAMES = tuple(METRICS)


@cache
def result(count, sides):
    rng, made = random.Random(count), []
    some = searched().trials
    names = NAMES[:sides]
    for number in range(count):
        values = {name: rng.uniform(1, 100) for name in names}
        trial = Trial(number, {}, some[number % len(some)].architecture).started()
        made.append(trial.succeeded(Measurement(values, {})))
    return Result(SearchSpec(trials=count, objectives=names, target="eager"), tuple(made))


@pytest.mark.parametrize("sides", [1, 2, 4, 5])
def test_an_estimate_is_within_its_error_of_the_exact_volume(sides):
    rng = random.Random(sides)
    sampled, places = Sampled(sides), []
    for _ in range(12):
        places.append([rng.random() ** 2 for _ in range(sides)])
        share = sampled.add(places[-1])
        exact = hypervolume(places, [1.0] * sides)
        assert share == pytest.approx(exact, abs=4 * standard_error(exact) + 1 / POINTS)


def test_three_objectives_are_exact_and_four_are_not():
    assert not result(20, 3).span().estimated
    few = result(20, 4)
    span = few.span()
    places = [span.place(trial) for trial in few.succeeded]
    exact = hypervolume(places, [1.1] * 4) / 1.1**4

    assert span.estimated
    assert few.hypervolume() == pytest.approx(exact, abs=4 * standard_error(exact))
    assert few.hypervolume() == few.growth()[-1].hypervolume == span.share(few.front())
    assert Span.of([], few.metrics).share([]) == 0.0


def test_many_objectives_end_and_say_that_they_are_estimated():
    """Exact volumes of these would take longer than anybody waits."""
    many = result(30, len(NAMES))
    growing = [step.hypervolume for step in many.growth()]
    grown = growths(many)
    chance = shuffled(many, grown.span, grown.machine)

    assert growing == sorted(growing)
    assert chance.mean[-1] == pytest.approx(growing[-1])
    assert chance.mean == sorted(chance.mean)
    assert f"about {many.hypervolume():.3f} (estimated) of the box" in as_text(many)
    found = Findings.of(many)
    assert found.estimated
    assert "(estimated)" in found.growth[0].said
    assert "(estimated)" in found.growth[0].layout["yaxis"]["title"]["text"]
    board = Board(many.spec)
    for trial in many.trials:
        board.add(trial)
    assert board.curve()[-1] == pytest.approx(growing[-1])
    assert "estimated" not in Findings.of(result(20, 2)).growth[0].said


def test_an_architecture_is_counted_once(monkeypatch):
    """To count it a model is laid out: of many trials there are few architectures."""
    counted, plain = [], costs.cost_of
    monkeypatch.setattr(costs, "cost_of", lambda spec: counted.append(spec) or plain(spec))
    trials = result(90, 1).succeeded
    rows = ranking_fidelity(trials)

    assert [row.proxy for row in rows] == ["flops", "params"]
    assert rows[0].all.n == 90
    assert len(counted) == len({trial.architecture.fingerprint() for trial in trials}) < 90
