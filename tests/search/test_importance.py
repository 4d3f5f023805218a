"""Importance finds the knob that matters, and says so where there is nothing to be said."""

import random
from dataclasses import replace

import pytest

from formwright.search import Result, Trial
from formwright.search.importance import LEAST, MOST, importance, knobs_of, traits

from .evaluations import arch, attention
from .recorded import searched


def trials(count, value, seed=0, **knobs):
    rng = random.Random(seed)
    made = []
    for number in range(count):
        genes = {name: rng.choice(choices) for name, choices in knobs.items()}
        values = {"quality": float(value(genes, rng))}
        made.append(Trial(number, genes, arch(), values=values))
    return made


KNOBS = {"width": (8, 16, 32), "mixer": ("pool", "conv"), "idle": (1, 2, 3, 4)}


def both(genes, _):
    return genes["width"] + 40 * (genes["mixer"] == "conv")


def test_the_knobs_that_matter_come_first_and_the_idle_one_last():
    found = importance(trials(60, both, **KNOBS), "quality")

    assert found.r2 > 0.9
    assert not found.why
    assert [weight.knob for weight in found.weights] == ["mixer", "width", "idle"]
    assert abs(found.weights[-1].mean) < 0.05
    assert all(w.low <= w.mean <= w.high for w in found.weights)
    assert found == importance(trials(60, both, **KNOBS), "quality")


def test_noise_is_said_to_be_noise():
    found = importance(trials(40, lambda genes, rng: rng.random(), **KNOBS), "quality")

    assert found.r2 < 0.1
    assert "predicts nothing" in found.why


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (trials(LEAST - 1, both, **KNOBS), f"not enough: {LEAST - 1} of {LEAST}"),
        (trials(30, lambda *_: 1, **KNOBS), "same value"),
        (trials(30, lambda _, rng: rng.random(), width=(8,)), "no knob differs"),
    ],
    ids=["few", "equal", "one setting"],
)
def test_where_nothing_can_be_said(made, why):
    found = importance(made, "quality")

    assert why in found.why
    assert found.r2 is None


def test_values_of_several_sizes_are_learnt_by_their_logarithm():
    found = importance(trials(60, lambda g, _: 10 ** (g["width"] / 8), **KNOBS), "quality")
    assert found.logarithm
    assert found.weights[0].knob == "width"


def test_a_users_own_architecture_has_no_genes_and_is_left_out():
    made = trials(LEAST, both, **KNOBS)
    own = replace(made[0], number=99, params={})
    assert importance([*made, own], "quality").n == LEAST


def test_without_genes_knobs_are_read_off_the_architectures():
    """As records of an older service are."""
    result = searched()
    bare = [replace(trial, params={}) for trial in result.succeeded]
    columns = knobs_of(bare)

    assert {"width", "layers", "stem patch"} <= set(columns)
    assert columns["width"] == [t.architecture.stages[0].width for t in bare]
    told = dict(traits(arch(attention(heads=2, head_width=8))))
    assert told["mixer 1"] == "attention"
    assert told["mixer 1 heads"] == 2


def test_of_many_trials_some_are_learnt_from(monkeypatch):
    monkeypatch.setattr("formwright.search.importance.MOST", 30)
    assert importance(trials(90, both, **KNOBS), "quality").n == 30 < MOST


def test_a_result_without_trials():
    assert importance(Result(searched().spec, ()).succeeded, "quality").n == 0
