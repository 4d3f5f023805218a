"""Ranks and order of trials, against their definitions."""

from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formwright.search import METRICS, dominates, pareto
from formwright.search.hypervolume import contributions_by_definition
from formwright.search.ranking import costs, normalised, order, ranks


@dataclass(frozen=True)
class Point:
    number: int
    values: dict
    details = {}  # noqa: RUF012


ALL = [METRICS[name] for name in ("quality", "params", "latency_ms", "flops", "state_bytes")]


def points_of(rows):
    return [
        Point(at, {m.name: float(x) for m, x in zip(ALL, row, strict=False)})
        for at, row in enumerate(rows)
    ]


def sets_of_trials():
    """With 1 to 5 metrics, many values equal."""
    return st.integers(1, 5).flatmap(
        lambda d: st.lists(st.tuples(*[st.integers(0, 3)] * d), max_size=20).map(
            lambda rows: (points_of(rows), ALL[:d])
        )
    )


def peeled(trials, metrics):
    """By definition: the front has rank 0, the front of the others 1, and so on."""
    found, left, rank = {}, list(trials), 0
    while left:
        front = {t.number for t in pareto(left, metrics)}
        found |= dict.fromkeys(front, rank)
        left, rank = [t for t in left if t.number not in front], rank + 1
    return [found[t.number] for t in trials]


@given(sets_of_trials())
@settings(deadline=None, derandomize=True, max_examples=200)
def test_a_rank_is_how_many_fronts_are_before(case):
    trials, metrics = case
    assert ranks(trials, metrics) == peeled(trials, metrics)


@given(sets_of_trials())
@settings(deadline=None, derandomize=True, max_examples=100)
def test_the_order_is_by_rank_contribution_and_number(case):
    trials, metrics = case
    keys = {}
    for rank in set(of := ranks(trials, metrics)):
        equal = [t for t, r in zip(trials, of, strict=True) if r == rank]
        unit = normalised([costs(t, metrics) for t in equal])
        shares = contributions_by_definition(unit, [1.1] * len(metrics))
        keys |= {t.number: (rank, -round(s, 9)) for t, s in zip(equal, shares, strict=True)}

    found = [keys[t.number] for t in order(trials, metrics)]

    assert found == sorted(found)
    assert sorted(t.number for t in order(trials, metrics)) == [t.number for t in trials]


def test_the_order_does_not_depend_on_who_came_first():
    rng = Random(0)
    trials = points_of([[rng.randint(0, 9) for _ in range(3)] for _ in range(60)])
    shuffled = rng.sample(trials, len(trials))
    assert order(shuffled, ALL[:3]) == order(trials, ALL[:3])


@pytest.mark.parametrize("count", [3, 5])
def test_a_large_set_is_ranked_as_a_small_one(count):
    """Beyond three metrics fronts are tables that grow, and large ranks are ordered by crowding."""
    rng = Random(1)
    trials = points_of([[rng.random() for _ in range(count)] for _ in range(400)])
    metrics = ALL[:count]
    of = dict(zip([t.number for t in trials], ranks(trials, metrics), strict=True))

    for trial in trials:
        above = [of[o.number] for o in trials if dominates(o.values, trial.values, metrics)]
        assert of[trial.number] == max(above, default=-1) + 1
    ordered = [of[t.number] for t in order(trials, metrics)]
    assert ordered == sorted(ordered)


def test_of_a_crowded_rank_the_ends_come_first():
    rows = [[-at, at, 0, 0] for at in range(100)]
    rows += [[-50.5, 50.5, 0, 0]]  # with two neighbours at half the distance
    trials = points_of([[-x for x in row[:1]] + row[1:] for row in rows])
    best_first = [t.number for t in order(trials, ALL[:4])]

    assert set(best_first[:2]) == {0, 99}
    assert set(best_first[-3:]) == {50, 51, 100}


def test_who_lacks_a_value_is_behind_everybody():
    trials = points_of([[1, 1], [2, 0], [0, 2]])
    lacking = Point(3, {"quality": 9.0})

    assert ranks([lacking, *trials], ALL[:2]) == [3, 1, 0, 2]
    assert order([lacking, *trials], ALL[:2])[-1] is lacking
