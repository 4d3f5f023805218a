"""The exact front of sums is that of trying everything."""

import itertools
import random

import pytest

from formwright.search.additive import exact_front


def problems():
    rng = random.Random(0)
    for _ in range(80):
        sizes = [rng.randint(1, 4) for _ in range(rng.randint(1, 5))]
        costs = [[rng.randint(-3, 9) for _ in range(size)] for size in sizes]
        scores = [[rng.choice((rng.random(), rng.randint(0, 2))) for _ in of] for of in costs]
        yield costs, scores


def total(table, choice):
    return sum(of[at] for of, at in zip(table, choice, strict=True))


@pytest.mark.parametrize("budget", [None, 6])
def test_the_front_is_what_no_choice_beats(budget):
    sizes = set()
    for costs, scores in problems():
        every = [
            (total(costs, c), round(total(scores, c), 9))
            for c in itertools.product(*(range(len(of)) for of in costs))
        ]
        within = {point for point in every if budget is None or point[0] <= budget}
        expected = [
            p
            for p in sorted(within)
            if not any(o[0] <= p[0] and o[1] <= p[1] for o in within - {p})
        ]

        front = exact_front(costs, scores, budget)

        assert [(total(costs, c), round(total(scores, c), 9)) for c in front] == expected
        sizes.add(len(front))
    assert len(sizes) > 5


def test_many_parts_are_no_matter():
    """4 to the power of 60 choices, 181 of them on the front."""
    costs, scores = [[0, 1, 2, 3]] * 60, [[3.0, 2.0, 1.0, 0.0]] * 60
    front = exact_front(costs, scores)
    assert [total(costs, c) for c in front] == list(range(181))


def test_tables_of_another_form_are_refused():
    with pytest.raises(ValueError, match="zip"):
        exact_front([[1, 2]], [[1.0]])
    assert exact_front([[1, 2], []], [[1.0, 2.0], []]) == []
