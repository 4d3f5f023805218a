"""Every sampler finds a front that is known in closed form, in a stated number of trials."""

import statistics
from functools import cache

import pytest

from formwright.search import pareto

from .known import (
    BRANCHES,
    CHAIN,
    METRIC,
    front_of_branches,
    front_of_chain,
    of_branches,
    of_chain,
    searched,
    volume,
)

# space -> what its genes are worth, and its front
KNOWN = {
    "chain": (CHAIN, of_chain, front_of_chain()),
    "branches": (BRANCHES, of_branches, front_of_branches()),
}
TRIALS = {"exact": 40, "tpe": 80, "nsga2": 200}
SEEDS = range(5)


@cache
def shares(sampler, space, trials):
    """Of the true hypervolume, for each seed."""
    genes, values, front = KNOWN[space]
    return [volume(searched(sampler, genes, values, trials, seed), front) for seed in SEEDS]


class Valued:
    def __init__(self, values):
        self.values, self.details = values, {}


@pytest.mark.parametrize("space", KNOWN)
def test_the_front_is_the_one_in_closed_form(space):
    genes, values, front = KNOWN[space]
    every = [Valued(values(genes.canonical(each))) for each in genes.all()]
    best = pareto(every, METRIC)
    assert {(t.values["params"], t.values["quality"]) for t in best} == front


def test_the_exact_front_is_found_whole():
    """After the largest and each of 18 changes of one knob the sums are known; 19 are on the front,
    the largest and one that has the last unit less among them; the rest is proposed while those
    are in flight."""
    for seed in SEEDS:
        found = searched("exact", CHAIN, of_chain, TRIALS["exact"], seed)
        assert front_of_chain() <= set(found)
        assert volume(found, front_of_chain()) == 1.0


@pytest.mark.parametrize(
    ("sampler", "space"), [("tpe", "branches"), ("nsga2", "branches"), ("nsga2", "chain")]
)
def test_it_finds_the_front_where_chance_does_not(sampler, space):
    found = shares(sampler, space, TRIALS[sampler])
    chance = shares("random", space, TRIALS[sampler])

    assert statistics.mean(found) >= 0.95
    assert min(found) >= 0.9
    assert statistics.mean(found) > statistics.mean(chance) + 0.02
    assert all(mine > other for mine, other in zip(found, chance, strict=True))
