"""Every sampler: proposals are of the space, depend on what was told, and learn (but `random`)."""

import random
import statistics

import pytest

from formwright.search import METRICS, Measurement, Trial
from formwright.search.propose import SAMPLERS
from formwright.search.space import SPACES, Signature

SPACE = SPACES.load("metaformer")
METRIC = [METRICS["quality"], METRICS["params"]]


def trial(number, genes):
    return Trial(number, genes, SPACE.decode(genes, Signature((1, 8, 8), 10)))


def score(genes):
    """Wide and full of attention is good; wide is expensive."""
    good = sum(genes[f"mixer{at}"] == "attention" for at in range(genes["depth"]))
    return {"quality": good + genes["width"] / 64, "params": genes["width"]}


def told(sampler, seed, count):
    proposer = SAMPLERS.load(sampler).make(SPACE, METRIC, seed)
    proposals = []
    for number in range(count):
        genes = proposer.ask(number, 0)
        proposals.append(genes)
        running = trial(number, genes).started()
        proposer.tell(running)
        ended = running.succeeded(Measurement(score(genes)))
        proposer.tell(running.failed("no") if number % 7 == 6 else ended)
    return proposals


@pytest.mark.parametrize("sampler", SAMPLERS.names())
def test_proposals_are_of_the_space_and_canonical(sampler):
    for genes in told(sampler, 0, 20):
        assert SPACE.canonical(genes) == genes


@pytest.mark.parametrize("sampler", SAMPLERS.names())
def test_a_proposal_depends_on_what_was_told_only(sampler):
    first, second = told(sampler, 3, 20), told(sampler, 3, 20)
    assert first == second

    restarted = SAMPLERS.load(sampler).make(SPACE, METRIC, 3)
    for number, genes in enumerate(first[:19]):
        running = trial(number, genes).started()
        ended = running.succeeded(Measurement(score(genes)))
        restarted.tell(running.failed("no") if number % 7 == 6 else ended)
    assert restarted.ask(19, 1) != restarted.ask(19, 0) == first[19]


def test_tpe_finds_better_than_chance():
    mean = {
        name: statistics.mean(
            score(genes)["quality"] for seed in range(4) for genes in told(name, seed, 60)[30:]
        )
        for name in ("tpe", "random")
    }
    assert mean["tpe"] > mean["random"] + 0.5


def test_tpe_looks_elsewhere_while_a_candidate_runs():
    proposer = SAMPLERS.load("tpe").make(SPACE, METRIC, 0)
    rng = random.Random(0)
    for number in range(20):
        running = trial(number, SPACE.sample(rng)).started()
        proposer.tell(running)
        proposer.tell(running.succeeded(Measurement(score(running.params))))
    first = proposer.ask(20, 0)
    proposer.tell(trial(20, first).started())

    assert proposer.ask(21, 0) != first
