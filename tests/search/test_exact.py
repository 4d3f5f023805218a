"""What the sampler `exact` takes for the same, and how often it looks for a front."""

from itertools import pairwise

import pytest

from formwright.search import METRICS, ArchSpec, Measurement, Trial
from formwright.search.propose import exact
from formwright.search.propose.exact import FINE, NOISE, Exact, _distinct
from formwright.search.space import OneOf, Space

NOTHING = ArchSpec.of_images((1, 8, 8), 10, 2, 32, ())
STEP = int(NOISE * FINE)
KNOBS = tuple(OneOf(f"knob{at}", (0, 1, 2)) for at in range(2))


def kept(prices, scores):
    """Which members of a front, each a choice of one knob, are not noise."""
    members = [(at,) for at in range(len(prices))]
    return [at for (at,) in _distinct(members, [prices], [scores])]


def test_of_two_that_differ_by_noise_the_better_or_cheaper_one_stays():
    far = 50 * STEP
    assert kept([0, far, far + STEP - 1], [3 * far, 2 * far, far]) == [0, 2]
    assert kept([0, far, 2 * far], [far, far - STEP, 0]) == [0, 2]
    assert kept([0, far, 2 * far], [3 * far, 2 * far, far]) == [0, 1, 2]
    assert kept([5], [5]) == [0]


def test_small_steps_that_add_up_leave_some():
    """Ten steps of 0.6 of the noise each, in both: together six times the noise."""
    many = range(11)
    prices = [6 * STEP * at // 10 for at in many]
    scores = [100 * STEP - 6 * STEP * at // 10 for at in many]
    for found in (
        kept(prices, [9 * STEP * (11 - at) for at in many]),
        kept([9 * STEP * at for at in many], scores),
        kept(prices, scores),
    ):
        assert len(found) == 6
        assert found[0] <= 1
        assert found[-1] >= 9
        assert all(b - a == 2 for a, b in pairwise(found))


def told(proposer, number, genes):
    trial = Trial(number, genes, NOTHING).started()
    values = {"quality": sum(genes.values()), "params": 1 + 2 * genes["knob0"] + genes["knob1"]}
    proposer.tell(trial.succeeded(Measurement(values)))


def test_the_front_is_found_once_for_all_that_is_told(monkeypatch):
    found, front = [], exact.exact_front

    def counted(*tables):
        found.append(tables)
        return front(*tables)

    monkeypatch.setattr(exact, "exact_front", counted)
    metrics = [METRICS["quality"], METRICS["params"]]
    proposer = Exact(Space("two", KNOBS, lambda *_: NOTHING), metrics, 0)
    for number in range(5):
        told(proposer, number, proposer.ask(number, 0))

    found.clear()
    draws = [proposer.ask(5, draw) for draw in range(4)]
    assert len(found) == 1
    assert len({repr(genes) for genes in draws}) == 4
    proposer.tell(Trial(5, draws[0], NOTHING).started())
    assert proposer.ask(6, 0) != draws[0]
    assert len(found) == 1  # who runs has no values

    told(proposer, 5, draws[0])
    proposer.ask(6, 0)
    assert len(found) == 2


@pytest.mark.parametrize("constraint", [True, False])
def test_where_the_largest_is_not_allowed_the_smallest_is_varied(constraint):
    metrics = [METRICS["quality"], METRICS["params"]]
    proposer = Exact(Space("two", KNOBS, lambda *_: NOTHING), metrics, 0)
    largest = proposer.ask(0, 0)
    assert largest == {"knob0": 2, "knob1": 2}
    running = Trial(0, largest, NOTHING).started()
    if constraint:
        proposer.tell(running.pruned("params is 7, not <= 5", Measurement({"params": 7.0})))
    else:
        waits = running.climbed(Measurement({"quality": 4.0, "params": 7.0}))
        proposer.tell(waits.stopped("behind"))  # by the ladder, which says nothing of its size

    asked = []
    for number in range(1, 6):
        asked.append(tuple(proposer.ask(number, 0).values()))
        told(proposer, number, dict(zip(("knob0", "knob1"), asked[-1], strict=True)))
    if constraint:
        assert asked[0] == (0, 0)
        assert set(asked[1:]) == {(0, 1), (0, 2), (1, 0), (2, 0)}
    else:
        assert set(asked[:4]) == {(2, 0), (2, 1), (0, 2), (1, 2)}
