"""Mix'n'Match: the exact choice is that of trying everything; the heuristic does as it says."""

import itertools
import random

import pytest

from formwright.search import SpecError
from formwright.search.supernet import best, gentle


def problems():
    rng = random.Random(0)
    for _ in range(60):
        layers, widths = rng.randint(1, 5), rng.randint(1, 4)
        costs = [sorted(rng.sample(range(1, 40), widths)) for _ in range(layers)]
        scores = [[rng.random() for _ in range(widths)] for _ in range(layers)]
        yield costs, scores, rng.randint(layers, 40 * layers)


def total(table, choice):
    return sum(of[at] for of, at in zip(table, choice, strict=True))


def test_the_best_choice_is_that_of_trying_everything():
    found = 0
    for costs, scores, budget in problems():
        every = [
            c
            for c in itertools.product(*(range(len(of)) for of in costs))
            if total(costs, c) <= budget
        ]
        if not every:
            with pytest.raises(SpecError, match="the least is"):
                best(costs, scores, budget)
            continue
        found += 1
        choice = best(costs, scores, budget)

        assert total(costs, choice) <= budget
        want = min(total(scores, c) for c in every)
        assert total(scores, choice) == pytest.approx(want)
    assert found > 30


def test_gentle_widths_never_fall_and_use_the_budget():
    for costs, _, budget in problems():
        every = [
            c
            for c in itertools.product(*(range(len(of)) for of in costs))
            if list(c) == sorted(c) and total(costs, c) <= budget
        ]
        if not every:
            with pytest.raises(SpecError, match="the least is"):
                gentle(costs, budget)
            continue
        choice = gentle(costs, budget)

        assert choice in every
        assert total(costs, choice) == max(total(costs, c) for c in every)


def test_gentle_takes_each_layer_as_it_is():
    assert gentle([[1, 2], [1, 2, 3]], 5) == (1, 2)
    many = [list(range(1, 9))] * 32  # 15 million rising choices
    assert sum(c + 1 for c in gentle(many, 100)) == 100


def test_gentle_is_as_even_as_can_be():
    """All layers cost the same: two steps up in the middle, not one layer with all of it."""
    assert gentle([[1, 2, 3]] * 4, 8) == (1, 1, 1, 1)
    assert gentle([[1, 2, 3]] * 4, 9) == (1, 1, 1, 2)
