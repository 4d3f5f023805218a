"""A search of a part of a space: knobs are said in the spec, and checked before anything runs."""

import pytest

from formwright.search import SPACES, MemoryLog, SearchSpec, SpecError, TrialState, drive
from formwright.search.run.pool import SerialPool

from .test_loop import evaluate

PART = SearchSpec(trials=6, knobs=("width=16|32", "depth=2", "norm=rms"))


def test_they_are_sorted_and_come_back():
    assert PART.knobs == ("depth=2", "norm=rms", "width=16|32")
    assert SearchSpec.from_json(PART.to_json()) == PART


def test_a_spec_without_any_is_written_as_it_was():
    assert "knobs" not in SearchSpec().to_json()


def test_only_that_part_is_searched():
    log = MemoryLog()
    drive(PART, SerialPool(evaluate), log)
    trials = log.history()

    assert [t.state for t in trials] == [TrialState.SUCCEEDED] * 6
    assert {t.params["depth"] for t in trials} == {2}
    assert {t.params["norm"] for t in trials} == {"rms"}
    assert {t.params["width"] for t in trials} <= {16, 32}
    assert all(len(t.architecture.layers) == 2 for t in trials)


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        (("width",), 'wanted "name=value"'),
        (("width=16", "width=32"), "a knob is there twice: width, width"),
        ((16,), 'wanted "name=value"'),
        ("width=16", "wanted a list"),
    ],
)
def test_what_is_no_knob_is_refused(knobs, said):
    with pytest.raises(SpecError, match=said):
        SearchSpec(knobs=knobs)


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        (("widht=16",), "unknown knob of metaformer 'widht'; .*Did you mean 'width'"),
        (("width=17",), r"knobs\[0\]: '17' is not one of 16, 32, 48, 64"),
        (("depth=2", "width=16|"), r"knobs\[1\]: '' is not one of"),
    ],
)
def test_what_the_space_does_not_have_is_refused_before_anything_runs(knobs, said):
    log, spec = MemoryLog(), SearchSpec(knobs=knobs)
    with pytest.raises(SpecError, match=said):
        spec.check_names()
    with pytest.raises(SpecError, match=said):
        drive(spec, SerialPool(evaluate), log)
    assert log.history() == []


@pytest.mark.parametrize("name", SPACES.names())
def test_every_choice_of_every_space_can_be_said(name):
    space = SPACES.load(name)
    for gene in space.genes:
        for choice in gene.choices:
            part = SearchSpec(space=name, knobs=(f"{gene.name}={choice}",)).part_of(space)
            (kept,) = (g.choices for g in part.genes if g.name == gene.name)
            assert kept == (choice,)
