"""Spaces whose Pareto fronts are known in closed form, and a search of them without a loop.

    chain       knobs that are always on: cost and quality add up
    branches    a depth turns knobs on, and a name decides whether any of it is good

In both a unit of cost buys less from knob to knob, so the best for each cost is to turn the first
knobs all the way up: one point of the front for each cost.
"""

from collections import deque

from formwright.search import METRICS, ArchSpec, Measurement, Trial
from formwright.search.propose import SAMPLERS
from formwright.search.space import OneOf, Space

METRIC = [METRICS["quality"], METRICS["params"]]
NOTHING = ArchSpec.of_images((1, 8, 8), 10, 2, 32, ())
STEPS = (0, 1, 2, 3)
WORTH = (6, 5, 4, 3, 2, 1)  # of a unit in each knob
WIDTHS = (1, 2, 3, 4)

CHAIN = Space(
    "chain", tuple(OneOf(f"knob{at}", STEPS) for at in range(len(WORTH))), lambda *_: NOTHING
)
BRANCHES = Space(
    "branches",
    (
        OneOf("kind", ("plain", "gate", "skip", "mix")),
        OneOf("depth", WIDTHS),
        *(OneOf(f"width{at}", WIDTHS, when={"depth": WIDTHS[at:]}) for at in range(4)),
    ),
    lambda *_: NOTHING,
)


def of_chain(genes):
    up = [genes[f"knob{at}"] for at in range(len(WORTH))]
    worth = sum(w * steps for w, steps in zip(WORTH, up, strict=True))
    return {"quality": float(worth), "params": float(sum(up))}


def of_branches(genes):
    widths = [genes[f"width{at}"] for at in range(genes["depth"])]
    worth = sum((6 - at) * width for at, width in enumerate(widths))
    less = {"plain": 4, "gate": 0, "skip": 8, "mix": 12}[genes["kind"]]
    return {"quality": float(worth - less), "params": float(sum(widths))}


def front_of_chain():
    """By cost the best quality: each knob has 3 units."""
    return _bought([worth for worth in WORTH for _ in range(3)], from_cost=0)


def front_of_branches():
    """The first layer is there anyway, and each has 4 units."""
    return _bought([6 - at for at in range(4) for _ in range(4)], from_cost=1)


def _bought(worths, from_cost):
    costs = range(from_cost, len(worths) + 1)
    return {(float(cost), float(sum(worths[:cost]))) for cost in costs}


def volume(points, of):
    """The share of what the front `of` dominates that the points do, by definition: for each cost
    the best that is bought for as much or less."""

    def under(found):
        costs = range(int(max(cost for cost, _ in of)) + 2)
        low = min(quality for _, quality in of) - 1
        best = [max((q for c, q in found if c <= cost), default=low) for cost in costs]
        return sum(max(quality - low, 0.0) for quality in best)

    return under(points) / under(of)


def searched(sampler, space, values, trials, seed=0, slots=3):
    """The values of `trials` trials as a search would make them: `slots` run at a time, the eldest
    ends first; what is known is proposed anew, then one of its neighbours is taken."""
    proposer = SAMPLERS.load(sampler).make(space, METRIC, seed)
    running, found, known = deque(), [], set()
    for number in range(trials):
        if len(running) == slots:
            _end(proposer, running.popleft(), values, found)
        genes = _fresh(proposer, space, number, known)
        known.add(repr(genes))
        trial = Trial(number, genes, NOTHING)
        proposer.tell(trial)
        running.append(trial.started())
        proposer.tell(running[-1])
    while running:
        _end(proposer, running.popleft(), values, found)
    return found


def _fresh(proposer, space, number, known):
    for draw in range(4):
        genes = proposer.ask(number, draw)
        assert space.canonical(genes) == genes
        if repr(genes) not in known:
            return genes
    near = [g for g in space.neighbours(genes) if repr(g) not in known]
    return near[number % len(near)] if near else genes


def _end(proposer, trial, values, found):
    ended = trial.succeeded(Measurement(values(trial.params)))
    proposer.tell(ended)
    found.append((ended.values["params"], ended.values["quality"]))
