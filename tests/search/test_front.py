"""Domination and the Pareto front, against their definitions."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formwright.search import METRICS, SpecError, dominates, pareto, same_machine


@dataclass(frozen=True)
class Point:
    values: dict
    details: dict = field(default_factory=dict)


NAMES = ("quality", "latency_ms", "params")
ALL = [METRICS[name] for name in NAMES]
points = st.lists(
    st.tuples(*[st.integers(0, 4)] * 3).map(
        lambda v: Point(dict(zip(NAMES, map(float, v), strict=True)))
    ),
    max_size=25,
)


@given(points)
@settings(deadline=None, derandomize=True)
def test_the_front_is_what_nothing_dominates(trials):
    front = pareto(trials, ALL)

    expected = [t for t in trials if not any(dominates(o.values, t.values, ALL) for o in trials)]
    key = lambda t: sorted(t.values.items())  # noqa: E731
    assert sorted(front, key=key) == sorted(expected, key=key)
    assert [-t.values["quality"] for t in front] == sorted(-t.values["quality"] for t in front)


@given(points)
@settings(deadline=None, derandomize=True)
def test_domination_is_a_strict_order(trials):
    for a in trials:
        assert not dominates(a.values, a.values, ALL)
        for b in trials:
            assert not (dominates(a.values, b.values, ALL) and dominates(b.values, a.values, ALL))


def test_a_trial_without_a_value_is_no_candidate():
    assert pareto([Point({"quality": 1.0})], ALL) == []


def test_latencies_of_two_machines_do_not_compare():
    here = Point({"latency_ms": 1.0}, {"machine": {"fingerprint": "m1:a"}})
    there = Point({"latency_ms": 2.0}, {"machine": {"fingerprint": "m1:b"}})
    latency, params = [METRICS["latency_ms"]], [METRICS["params"]]

    with pytest.raises(SpecError, match="m1:a, m1:b"):
        same_machine([here, there], latency)
    assert same_machine([here, there], latency, "m1:b") == [there]
    assert same_machine([here, there], params) == [here, there]
