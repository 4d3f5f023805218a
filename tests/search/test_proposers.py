"""Every sampler: proposals are of the space, depend on what was told, and learn (but `random`)."""

import random
import statistics
import subprocess
import sys
from dataclasses import replace

import pytest

from formwright.search import METRICS, ArchSpec, Measurement, SpecError, Trial
from formwright.search.propose import SAMPLERS, nsga2, tpe
from formwright.search.propose.exact import Exact, free_knobs
from formwright.search.propose.history import History
from formwright.search.space import SPACES, OneOf, Rule, Space

SPACE = SPACES.load("metaformer")
METRIC = [METRICS["quality"], METRICS["params"]]
NOTHING = ArchSpec.of_images((1, 8, 8), 10, 2, 32, ())
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS.names())
learns = pytest.mark.parametrize("sampler", sorted({*SAMPLERS.names()} - {"random"}))


def space_of(sampler):
    """One that it takes."""
    return SPACES.load("metaformer" if sampler != "exact" else "matformer")


def trial(number, genes):
    return Trial(number, genes, NOTHING)


def score(genes):
    """Wide and full of attention is good; wide is expensive."""
    if "depth" not in genes:
        wide = sum(genes[f"hidden{at}"] for at in range(4))
        return {"quality": wide**0.5, "params": wide}
    good = sum(genes[f"mixer{at}"] == "attention" for at in range(genes["depth"]))
    return {"quality": good + genes["width"] / 64, "params": genes["width"]}


def ended(number, genes):
    """Some fail."""
    running = trial(number, genes).started()
    done = running.succeeded(Measurement(score(genes)))
    return running.failed("no") if number % 7 == 6 else done


def told(sampler, seed, count):
    proposer = SAMPLERS.load(sampler).make(space_of(sampler), METRIC, seed)
    proposals = []
    for number in range(count):
        genes = proposer.ask(number, 0)
        proposals.append(genes)
        proposer.tell(trial(number, genes))
        proposer.tell(trial(number, genes).started())
        proposer.tell(ended(number, genes))
    return proposals


@every_sampler
def test_proposals_are_of_the_space_and_canonical(sampler):
    for genes in told(sampler, 0, 30):
        assert space_of(sampler).canonical(genes) == genes


@every_sampler
def test_a_proposal_depends_on_what_was_told_only(sampler):
    first, second = told(sampler, 3, 30), told(sampler, 3, 30)
    assert first == second

    restarted = SAMPLERS.load(sampler).make(space_of(sampler), METRIC, 3)
    for number, genes in enumerate(first[:29]):
        restarted.tell(ended(number, genes))
    assert restarted.ask(29, 1) != restarted.ask(29, 0) == first[29]


@learns
def test_what_is_known_is_not_proposed_again(sampler):
    proposals = told(sampler, 1, 60)
    assert len({repr(genes) for genes in proposals}) == len(proposals)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_it_finds_better_than_chance(sampler):
    mean = {
        name: statistics.mean(
            score(genes)["quality"] for seed in range(4) for genes in told(name, seed, 60)[30:]
        )
        for name in (sampler, "random")
    }
    assert mean[sampler] > mean["random"] + 0.5


@learns
def test_numbers_may_be_whole(sampler):
    counts = [METRICS["params"], METRICS["flops"]]
    proposer = SAMPLERS.load(sampler).make(space_of(sampler), counts, 0)
    for number in range(14):
        running = trial(number, proposer.ask(number, 0)).started()
        found = {"params": 10**6 + number % 5, "flops": 10**9 - number % 3}
        proposer.tell(trial(number, running.params))
        proposer.tell(running.succeeded(Measurement(found)))
    assert proposer.ask(14, 0)


@learns
def test_it_looks_elsewhere_while_a_candidate_runs(sampler):
    proposer, space = SAMPLERS.load(sampler).make(space_of(sampler), METRIC, 0), space_of(sampler)
    rng = random.Random(0)
    for number in range(20):
        proposer.tell(ended(number, space.sample(rng)))
    first = proposer.ask(20, 0)
    proposer.tell(trial(20, first).started())

    assert proposer.ask(20, 0) != first


@every_sampler
def test_a_users_own_architecture_is_nothing_to_learn_from(sampler):
    made = [SAMPLERS.load(sampler).make(space_of(sampler), METRIC, 0) for _ in range(2)]
    made[0].tell(trial(0, {}))
    made[0].tell(trial(0, {}).started().succeeded(Measurement({"quality": 1.0, "params": 9})))

    assert made[0].ask(1, 0) == made[1].ask(1, 0)


def test_samplers_load_no_torch():
    code = "import sys; from formwright.search.propose import SAMPLERS\n"
    code += "for name in SAMPLERS.names(): SAMPLERS.load(name)\n"
    code += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- a history that does not grow ---------------------------------------------------------------


def long_history(proposer, count, seed=0):
    rng = random.Random(seed)
    trials = [ended(number, SPACE.sample(rng)) for number in range(count)]
    for each in trials:
        proposer.tell(each)
    return trials


def test_what_the_model_sees_does_not_grow():
    proposer = SAMPLERS.load("tpe").make(SPACE, METRIC, 0)
    long_history(proposer, 2000)
    proposer.tell(trial(2000, SPACE.sample(random.Random(0))).started())
    states = [t.state.name for t in proposer.study().trials]

    assert states.count("RUNNING") == 1
    assert tpe.BEST + tpe.REST <= states.count("COMPLETE") <= tpe.BEST + tpe.REST + tpe.SLACK
    assert len(states) == states.count("COMPLETE") + 1


def test_there_are_only_so_many_parents():
    proposer = SAMPLERS.load("nsga2").make(SPACE, METRIC, 0)
    assert proposer.parents() == []
    trials = long_history(proposer, 1000)
    parents = proposer.parents()

    assert len(parents) == nsga2.PARENTS
    best = max(t.values["quality"] for t in trials if t.values)
    assert max(parent.values[0] for parent in parents) == best


def test_the_best_and_a_sample_of_the_others_are_kept():
    history = History(METRIC, best=20, rest=30, slack=10)
    rng = random.Random(0)
    every = []
    for number in range(500):
        values = {"quality": rng.random(), "params": rng.random()}
        running = trial(number, {"gene": number}).started()
        every.append(running.succeeded(Measurement(values)))
        history.tell(every[-1])
    whole = History(METRIC, best=500, rest=0, slack=0)
    for each in every:
        whole.tell(each)
    numbers = [t.number for t in history.ranked()]

    assert 50 <= len(numbers) <= 60
    assert numbers[:10] == [t.number for t in whole.ranked()][:10]
    assert history.knows(every[7].params)
    early = sum(t.number < 250 for t in history.ranked()[20:])
    assert 8 <= early <= 30  # neither the newest only nor the eldest


# --- trials that did not get to the end ---------------------------------------------------------


def test_who_got_further_stands_before_who_was_stopped():
    history = History(METRIC, best=9, rest=0, slack=0)
    waits = [trial(n, {"gene": n}).started() for n in range(6)]
    good, bad = {"quality": 0.9, "params": 1.0}, {"quality": 0.1, "params": 9.0}
    climbed = waits[1].climbed(Measurement(good))
    for each in (
        waits[0].pruned("params is 9, not <= 3", Measurement({"params": 9.0})),
        climbed,
        waits[2].climbed(Measurement(bad)).stopped("behind"),
        waits[3].succeeded(Measurement(bad)),
        waits[4].climbed(Measurement(bad)).started().climbed(Measurement(good)),
        waits[5],
    ):
        history.tell(each)

    assert [t.number for t in history.ranked()] == [3, 4, 1, 2, 0]
    assert [t.number for t in history.running] == [5]
    history.tell(climbed.started().failed("out of memory"))
    assert [t.number for t in history.ranked()] == [3, 4, 2, 0]
    assert history.knows(climbed.params)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_it_learns_from_the_first_rung_of_a_ladder(sampler):
    """Nobody has got to the end yet."""
    proposer = SAMPLERS.load(sampler).make(SPACE, METRIC, 0)
    rng = random.Random(0)
    for number in range(40):
        running = trial(number, SPACE.sample(rng)).started()
        proposer.tell(running.climbed(Measurement(score(running.params))))
    asked = [score(proposer.ask(40, draw))["quality"] for draw in range(20)]
    drawn = [score(SPACE.sample(rng))["quality"] for _ in range(200)]

    assert statistics.mean(asked) > statistics.mean(drawn) + 0.3


def test_tpe_tells_who_failed_a_constraint_from_who_runs():
    proposer = SAMPLERS.load("tpe").make(SPACE, METRIC, 0)
    running = trial(0, SPACE.sample(random.Random(0))).started()
    proposer.tell(running)
    proposer.tell(replace(running, number=1).pruned("params is 9, not <= 3"))
    proposer.tell(ended(2, SPACE.sample(random.Random(1))))
    made = {t.state.name: t for t in proposer.study().trials}

    assert set(made) == {"RUNNING", "PRUNED", "COMPLETE"}
    assert made["PRUNED"].constraints["place"] == 2.0
    assert not made["COMPLETE"].constraints


# --- neighbours ---------------------------------------------------------------------------------


def test_numbers_mutate_to_their_neighbours():
    """Parents that are all alike: children differ where they mutate."""
    space = Space(
        "numbers",
        (OneOf("width", tuple(range(0, 90, 10))), OneOf("kind", tuple("abcdefghi"))),
        lambda *_: NOTHING,
    )
    proposer = SAMPLERS.load("nsga2").make(space, METRIC, 0)
    for number in range(nsga2.STARTUP):
        running = trial(number, {"width": 40, "kind": "e"}).started()
        proposer.tell(running.succeeded(Measurement({"quality": 1.0, "params": 1.0})))
    children = [proposer.ask(99, draw) for draw in range(300)]
    steps = [abs(c["width"] - 40) // 10 for c in children if c["width"] != 40]
    kinds = {c["kind"] for c in children} - {"e"}

    assert len(steps) > 100
    assert 0.35 < steps.count(1) / len(steps) < 0.65
    assert 0.15 < steps.count(2) / len(steps) < 0.35
    assert kinds == set("abcdfghi")


# --- the exact front ----------------------------------------------------------------------------


def test_it_first_changes_one_knob_of_the_largest():
    space = space_of("exact")
    largest = {"patch": 2, **{f"hidden{at}": 128 for at in range(4)}}
    proposals = told("exact", 0, 1 + 1 + 4 * 3)

    assert proposals[0] == largest
    assert sorted(map(repr, proposals[1:])) == sorted(map(repr, space.neighbours(largest)))


def test_metrics_take_turns_against_the_first():
    metrics = [METRICS[name] for name in ("quality", "params", "latency_ms")]
    knobs = tuple(OneOf(f"knob{at}", (0, 1, 2)) for at in range(2))
    proposer = Exact(Space("two", knobs, lambda *_: NOTHING), metrics, 0)
    for number, (a, b) in enumerate([(2, 2), (1, 2), (0, 2), (2, 1), (2, 0)]):
        values = {"quality": a + b, "params": a + 9 * b, "latency_ms": 9 * a + b}
        done = trial(number, {"knob0": a, "knob1": b}).started().succeeded(Measurement(values))
        proposer.tell(done)
    cheap = [[(g["knob0"], g["knob1"]) for g in proposer.front(second)] for second in (1, 2)]

    assert set(cheap[0]) == {(0, 0), (1, 0), (2, 0), (2, 1), (2, 2)}
    assert set(cheap[1]) == {(0, 0), (0, 1), (0, 2), (1, 2), (2, 2)}
    asked = [tuple(proposer.ask(number, 0).values()) for number in (5, 6)]
    assert asked[0] in cheap[1]
    assert asked[1] in cheap[0]
    assert asked[0] != asked[1]


def test_a_choice_that_always_fails_is_on_no_front():
    knobs = tuple(OneOf(f"knob{at}", (0, 1, 2)) for at in range(2))
    proposer = Exact(Space("two", knobs, lambda *_: NOTHING), METRIC, 0)
    for number in range(12):
        genes = proposer.ask(number, 0)
        running = trial(number, genes).started()
        done = running.succeeded(Measurement({"quality": genes["knob0"], "params": genes["knob1"]}))
        proposer.tell(running.failed("no") if genes["knob1"] == 0 else done)

    assert {genes["knob1"] for genes in proposer.front(1)} == {1}


def test_knobs_that_are_not_always_on_are_refused():
    with pytest.raises(SpecError, match="mixer1 depends on depth: keep that to one value"):
        SAMPLERS.load("exact").make(SPACE, METRIC, 0)
    with pytest.raises(SpecError, match="it holds that heads of keys divide the heads"):
        SAMPLERS.load("exact").make(SPACES.load("hybrid_mamba"), METRIC, 0)

    part = SPACE.restricted(depth=2)
    assert [g.name for g in free_knobs(part)] == [
        *("patch", "width", "norm", "mixer0", "mixer1", "ratio0", "ratio1")
    ]
    proposer = SAMPLERS.load("exact").make(part, METRIC, 0)
    assert part.canonical(proposer.ask(0, 0)) == proposer.ask(0, 0)


def test_a_rule_is_refused():
    rule = Rule(("a",), lambda a: a < 3, "a is small")
    space = Space("ruled", (OneOf("a", (1, 2, 3)),), lambda *_: NOTHING, (rule,))
    with pytest.raises(SpecError, match="a is small"):
        free_knobs(space)
