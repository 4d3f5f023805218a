"""Figures are the numbers of a result, in words for plotly; how hypervolumes grow in any order."""

import json
import math
from dataclasses import replace
from itertools import combinations

import pytest

from formwright.search import (
    METRICS,
    Result,
    SpecError,
    growth_figure,
    growths,
    pareto,
    pareto_figures,
    ranking_fidelity,
)
from formwright.search.show.figure import kind_of
from formwright.search.show.figures import MOST, ROWS
from formwright.search.show.growths import ORDERS, WORK, shuffled
from formwright.search.show.tables import number
from formwright.search.show.weighed import fidelity_figure

from .recorded import SPEC, searched, with_block


@pytest.fixture(scope="module")
def plain():
    return searched()


def figures_of(result):
    return pareto_figures(result.succeeded, result.front(), result.metrics)


def trace(figure, start):
    (found,) = [t for t in figure.plot()["data"] if t.get("name", "").startswith(start)]
    return found


def points(found):
    return sorted(zip(found["x"], found["y"], strict=True))


def values(trials, x, y):
    return sorted((t.values[x.name], t.values[y.name]) for t in trials)


def test_a_figure_for_each_pair_of_objectives_has_the_trials_of_the_result(plain):
    front, figures = plain.front(), figures_of(plain)
    others = [t for t in plain.succeeded if t not in front]

    assert len(figures) == 3
    for (y, x), figure in zip(combinations(plain.metrics, 2), figures, strict=True):
        assert points(trace(figure, "on the front")) == values(front, x, y)
        assert points(trace(figure, "other trials")) == values(others, x, y)
        stairs = next(t for t in figure.data if t["mode"] == "lines")
        assert points(stairs) == values(pareto(plain.succeeded, [y, x]), x, y)
        symbols = {t["marker"]["symbol"] for t in figure.data if "marker" in t}
        assert len(symbols) == 2  # not by their colour alone
        assert len(figure.rows) == len(plain.succeeded)
        assert {row[0] for row in figure.rows if row[-1] == "front"} == {
            str(t.number) for t in front
        }


def test_one_points_at_a_trial_and_sees_what_it_is(plain):
    for figure in figures_of(plain):
        texts = [text for t in figure.data if "marker" in t for text in t["text"]]
        for trial in plain.succeeded:
            (text,) = [t for t in texts if t.startswith(f"<b>trial {trial.number}</b>")]
            assert trial.architecture.short().split(" | ")[0] in text
            assert all(number(trial.values[name]) in text for name in SPEC.objectives)


def test_one_objective_has_a_history():
    result = searched(replace(SPEC, objectives=("quality",)))
    (figure,) = figures_of(result)
    done = [t.values["quality"] for t in result.succeeded]

    assert trace(figure, "best so far")["y"] == [max(done[: n + 1]) for n in range(len(done))]
    assert points(trace(figure, "the best")) == sorted(
        (t.number, t.values["quality"]) for t in result.front()
    )


def test_a_history_names_the_trial_that_is_best_in_it(plain):
    """The front is of all objectives: its first trial is not the best by each of them."""
    front = plain.front()
    for metric in plain.metrics:
        (figure,) = pareto_figures(plain.succeeded, front, [metric])
        best = plain.best(metric.name).values[metric.name]
        first = min(t.number for t in plain.succeeded if t.values[metric.name] == best)
        assert figure.said.endswith(f"the best is {number(best)}, of trial {first}.")
        assert points(trace(figure, "on the front")) == sorted(
            (t.number, t.values[metric.name]) for t in front
        )
        assert figure.columns[-1] == "front"


def test_the_best_in_two_metrics_that_are_no_objectives_need_not_be_on_the_front(plain):
    values = {0: (9.0, 9.0), 1: (8.0, 8.5), 2: (1.0, 3.0), 3: (2.0, 2.0), 4: (3.0, 2.0)}
    trials = [
        replace(t, values={**t.values, "latency_ms": values[at][0], "peak_bytes": values[at][1]})
        for at, t in enumerate(plain.succeeded[:5])
    ]
    pair = [METRICS["latency_ms"], METRICS["peak_bytes"]]
    (figure,) = pareto_figures(trials, trials[:1], pair)
    line = next(t for t in figure.data if t["mode"] == "lines")

    assert sorted(zip(line["y"], line["x"], strict=True)) == [(1.0, 3.0), (2.0, 2.0)]
    (figure,) = pareto_figures([], [], pair)
    assert "0 trials on the front" in figure.said


def test_values_at_the_ends_of_what_a_float_can_be():
    for values in ([1.0, 1.7e308], [5e-324, 1.0], [5e-324, 1.7e308]):
        ticks = kind_of(values)["tickvals"]
        assert ticks == sorted(ticks)
        assert all(math.isfinite(tick) and tick > 0 for tick in ticks)


def test_the_hypervolume_is_that_of_the_result(plain):
    figure = growth_figure(growths(plain).curves)
    curve = trace(figure, "random")

    assert curve["y"][-1] == plain.hypervolume()
    at = dict(zip(curve["x"], curve["y"], strict=True))
    for step in plain.growth():
        if step.evaluations in at:
            assert at[step.evaluations] == step.hypervolume
    assert f"{plain.hypervolume():.3f} of the box" in figure.said


def test_searches_beside_are_in_one_box_and_have_names_of_their_own(plain):
    other = searched(replace(SPEC, seed=1))
    grown = growths(plain, [other, other])

    assert list(grown.curves) == ["random", "random 2", "random 3"]
    assert list(grown.curves["random 2"]) == other.growth(grown.span)
    assert list(growths(plain, {"random": other}).curves) == ["random", "random 2"]
    with pytest.raises(SpecError, match="wanted a search for"):
        growths(plain, [replace(other, spec=replace(SPEC, objectives=("params",)))])
    with pytest.raises(SpecError, match="nothing to draw"):
        growths(Result(SPEC, ()))


def test_its_own_trials_in_a_random_order(plain):
    span = plain.span()
    made = shuffled(plain, span, "")
    paid = len(plain.growth())

    assert made.orders == min(ORDERS, WORK // paid)
    assert len(made.mean) == len(made.low) == len(made.high) == paid
    assert all(low <= high for low, high in zip(made.low, made.high, strict=True))
    assert made.mean[-1] == pytest.approx(plain.hypervolume())
    assert made == shuffled(plain, span, "")
    # after one evaluation: what one trial has, in the mean over all, failed ones too
    alone = sum(span.share([t]) for t in plain.succeeded) / paid
    assert made.mean[0] == pytest.approx(alone, abs=4 * span.share(plain.front()) / ORDERS**0.5)
    chance = growth_figure(growths(plain).curves, made)
    assert trace(chance, "its own trials in a random order")["y"] == list(made.mean)


def test_too_many_trials_are_not_shuffled(plain):
    trial = plain.succeeded[0]
    many = Result(SPEC, tuple(replace(trial, number=n) for n in range(WORK // 10)))
    assert shuffled(many, many.span(), "") is None


def test_of_many_trials_some_are_drawn_and_all_are_counted(plain):
    trial = plain.succeeded[0]
    worse = {**trial.values, "params": trial.values["params"] + 1}
    others = [replace(trial, number=n, values=worse) for n in range(1, MOST + 1000)]
    figure = pareto_figures([trial, *others], [trial], plain.metrics)[0]

    assert len(trace(figure, "other trials")["x"]) == MOST
    assert f"{len(others)} others, of which {MOST:,} are drawn" in figure.said
    assert len(figure.rows) == ROWS
    assert figure.left_out == len(others) + 1 - ROWS


def test_what_others_have_written_is_text_and_what_is_no_number_is_none(plain):
    evil = "<a href='javascript:x'>&amp;</a>"
    trial = with_block(plain.succeeded[0], evil)
    odd = replace(plain.succeeded[1], values={**trial.values, "quality": math.inf, evil: math.nan})
    trials = [trial, odd]
    for figure in pareto_figures(trials, pareto(trials, plain.metrics), plain.metrics):
        told = json.dumps(figure.plot(), allow_nan=False)
        assert "<a" not in told
        assert "&lt;a" in told
    said = growth_figure({evil: plain.growth()}).plot()["data"][0]["name"]
    assert said == "&lt;a href='javascript:x'&gt;&amp;amp;&lt;/a&gt;"


def test_the_fidelity_of_proxies_is_drawn_with_its_intervals(plain):
    rows = ranking_fidelity(plain.trials, SPEC)
    figure = fidelity_figure(rows)
    drawn = figure.plot()["data"][0]
    known = [row for row in rows if row.all.tau is not None]

    assert [row[0] for row in figure.rows] == [row.proxy for row in rows]
    assert drawn["x"] == [row.all.tau for row in known]
    for at, row in enumerate(known):
        assert drawn["x"][at] + drawn["error_x"]["array"][at] == pytest.approx(row.all.high)
        assert drawn["x"][at] - drawn["error_x"]["arrayminus"][at] == pytest.approx(row.all.low)
    assert fidelity_figure(ranking_fidelity(plain.succeeded[:2], SPEC)) is None
