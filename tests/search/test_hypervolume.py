"""Hypervolumes against counting cells, and contributions against their definition."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formwright.search import SpecError
from formwright.search.hypervolume import (
    contributions,
    contributions_by_definition,
    hypervolume,
    over_time,
)

SIDE = 5


def sets_of_points(largest=9):
    """Points of a small grid, so that many are equal, tied or outside, in 1 to 5 dimensions."""
    return st.integers(1, 5).flatmap(
        lambda d: st.lists(st.tuples(*[st.integers(0, SIDE)] * d), max_size=largest).map(
            lambda points: (points, (SIDE - 1,) * d)
        )
    )


@given(sets_of_points())
@settings(deadline=None, derandomize=True, max_examples=200)
def test_it_counts_the_cells_that_a_point_is_below(case):
    points, reference = case
    cells = product(*(range(most) for most in reference))
    below = sum(
        any(all(x <= c for x, c in zip(p, cell, strict=True)) for p in points) for cell in cells
    )

    assert hypervolume(points, reference) == below


@given(sets_of_points())
@settings(deadline=None, derandomize=True, max_examples=200)
def test_a_contribution_is_what_is_lost_without_the_point(case):
    points, reference = case
    assert contributions(points, reference) == contributions_by_definition(points, reference)


@given(
    st.integers(2, 4).flatmap(
        lambda d: st.lists(st.tuples(*[st.floats(0, 1)] * d), min_size=1, max_size=25)
    )
)
@settings(deadline=None, derandomize=True, max_examples=100)
def test_contributions_of_any_numbers(points):
    reference = (0.9,) * len(points[0])
    found = contributions(points, reference)

    assert found == pytest.approx(contributions_by_definition(points, reference), abs=1e-12)
    assert sum(found) <= hypervolume(points, reference) + 1e-12


@given(sets_of_points())
@settings(deadline=None, derandomize=True, max_examples=60)
def test_over_time_is_that_of_each_beginning(case):
    points, reference = case
    beginnings = [points[: at + 1] for at in range(len(points))]
    assert over_time(points, reference) == [hypervolume(b, reference) for b in beginnings]


def test_points_of_another_length_are_refused():
    with pytest.raises(SpecError, match="2 coordinates"):
        hypervolume([(1, 2, 3)], (4, 4))
    with pytest.raises(SpecError, match="1 or more"):
        contributions([], ())
