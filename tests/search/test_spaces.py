"""Spaces are data: counted, drawn from, walked through, restricted; and each of ours builds."""

import itertools
import random

import pytest
import torch

from formwright.search import SPACES, ArchSpec, SpecError, build, cost_of
from formwright.search.space import OneOf, Rule, Signature, Space
from formwright.search.space.placement import even

DIGITS = Signature.of_images((1, 8, 8), 10)


def decode(genes, signature):
    return ArchSpec.of_images(signature.image, signature.classes, 1, 8, ())


SMALL = Space(
    "small",
    (
        OneOf("heads", (1, 2, 4)),
        OneOf("keys", (1, 2, 4)),
        OneOf("kind", ("a", "b", "c")),
        OneOf("size", (3, 5), when={"kind": ("a", "b")}),
        OneOf("deep", (1, 2, 3), when={"size": (5,)}),
        OneOf("free", (0, 1)),
    ),
    decode,
    (Rule(("heads", "keys"), lambda heads, keys: heads % keys == 0, "keys divide heads"),),
)


def distinct(space):
    """All canonical genes that keep the rules, by going through everything."""
    kept = (space.canonical(genes) for genes in space.all() if not space.broken(genes))
    return {repr(genes): genes for genes in kept}


def test_the_size_is_what_going_through_everything_finds():
    # 6 of 9 pairs keep the rule; kinds a and b have 1 + 3 sizes, c has none; free is free
    assert SMALL.size() == len(distinct(SMALL)) == 6 * (2 * (1 + 3) + 1) * 2
    assert SMALL.combinations() == 3 * 3 * 3 * 2 * 3 * 2


@pytest.mark.parametrize("name", SPACES.names())
def test_sizes_of_parts_that_can_be_gone_through(name):
    space = SPACES.load(name)
    rng = random.Random(0)
    for _ in range(5):
        kept = {g.name: rng.sample(g.choices, 2 if len(g.choices) > 1 else 1) for g in space.genes}
        few = {n: c[:1] if rng.random() < 0.5 else c for n, c in kept.items()}
        part = space.restricted(**few)
        if part.combinations() <= 4096:
            assert part.size() == len(distinct(part))


def test_what_is_off_is_at_its_first_choice():
    genes = {"heads": 4, "keys": 2, "kind": "c", "size": 5, "deep": 3, "free": 1}

    assert SMALL.canonical(genes) == genes | {"size": 3, "deep": 1}
    assert SMALL.active(genes) == {"heads": 4, "keys": 2, "kind": "c", "free": 1}
    on = genes | {"kind": "a"}
    assert SMALL.canonical(on) == on


def test_a_broken_rule_says_why():
    genes = {"heads": 1, "keys": 2, "kind": "c", "size": 5, "deep": 3, "free": 1}

    assert SMALL.broken(genes) == ["keys divide heads"]
    assert SMALL.broken(genes | {"heads": 2}) == []


def test_draws_keep_the_rules_and_reach_everything():
    rng = random.Random(0)
    drawn = {repr(SMALL.sample(rng)) for _ in range(5000)}

    assert drawn == set(distinct(SMALL))


def test_neighbours_differ_in_one_knob_that_is_on():
    genes = SMALL.canonical({"heads": 2, "keys": 1, "kind": "a", "size": 5, "deep": 2, "free": 0})
    near = SMALL.neighbours(genes)

    def on(name):
        return {n[name] for n in near if n[name] != genes[name]}

    assert on("heads") == {1, 4}
    assert on("keys") == {2}  # not 4, which does not divide 2
    assert on("kind") == {"b", "c"}
    assert all(n == SMALL.canonical(n) for n in near)
    assert len(near) == len({repr(n) for n in near})
    assert genes not in near


def test_everything_is_reached_from_anything():
    reached = {}
    queue = [SMALL.sample(random.Random(1))]
    while queue:
        genes = queue.pop()
        if reached.setdefault(repr(genes), genes) is genes:
            queue.extend(SMALL.neighbours(genes))

    assert set(reached) == set(distinct(SMALL))


def test_a_knob_that_is_turned_on_keeps_the_rules():
    space = SPACES.load("hybrid_mamba").restricted(heads=(1, 2), kv_heads=2)
    genes = space.canonical({g.name: g.choices[0] for g in space.genes})
    near = [n for n in space.neighbours(genes) if n["attention"] == 0.25]

    assert genes["attention"] == 0.0
    assert [n["heads"] for n in near] == [2]


def test_a_rule_that_hardly_anything_keeps():
    numbers = tuple(range(60))
    space = Space(
        "rare",
        (OneOf("a", numbers), OneOf("b", numbers)),
        decode,
        (Rule(("a", "b"), lambda a, b: a == b + 59, "a is 59 more"),),
    )

    assert space.sample(random.Random(0)) == {"a": 59, "b": 0}
    assert space.size() == 1


def test_a_part_of_a_space():
    part = SMALL.restricted(kind="a", heads=(4, 2), size=[5])

    assert [g.choices for g in part.genes[:4]] == [(2, 4), (1, 2, 4), ("a",), (5,)]
    assert part.size() == 5 * 3 * 2
    assert SMALL.size() == 108


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"head": 2}, "'head' is no knob of small: heads, keys"),
        ({"heads": 3}, "3 is not one of 1, 2, 4"),
        ({"heads": (1, 2.0)}, "2.0 is not one of 1, 2, 4"),
        ({"free": True}, "True is not one of 0, 1"),
        ({"kind": ()}, "wanted different choices"),
    ],
)
def test_a_part_that_is_none_is_refused(choices, said):
    with pytest.raises(SpecError, match=said):
        SMALL.restricted(**choices)


@pytest.mark.parametrize(
    ("genes", "rules"),
    [
        ((OneOf("a", (1,), when={"b": (1,)}), OneOf("b", (1, 2))), ()),
        ((OneOf("a", (1, 2), when={"a": (1,)}),), ()),
        ((OneOf("a", (1, 2)),), (Rule(("b",), lambda b: True, "no"),)),
    ],
)
def test_what_depends_on_nothing_known_is_refused(genes, rules):
    with pytest.raises(SpecError, match=r"not earlier|not known"):
        Space("s", genes, decode, rules)


def test_rules_that_nothing_keeps_are_said():
    rule = Rule(("heads",), lambda heads: False, "never")
    with pytest.raises(SpecError, match="nothing drawn keeps its rules"):
        Space("s", SMALL.genes, decode, (rule,)).sample(random.Random(0))


# --- ours -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES.names())
def test_drawn_genes_decode_build_run_and_come_back(name):
    space, rng = SPACES.load(name), random.Random(0)
    for _ in range(25):
        spec = space.decode(space.sample(rng), DIGITS)
        model = build(spec)

        assert ArchSpec.from_json(spec.to_json()) == spec
        assert cost_of(spec).params == sum(p.numel() for p in model.parameters())
        assert model(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_the_published_hybrid_comes_out_of_the_rule():
    published = "M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-"

    assert even(56, 0.07, 0.5) == even(56, 0.08, 0.5) == published
    assert [published.count(letter) for letter in "M*-"] == [24, 4, 28]
    assert [at for at, letter in enumerate(published) if letter == "*"] == [10, 22, 33, 45]
    small = even(48, 0.08, 0.5)
    assert [at for at, letter in enumerate(small) if letter == "*"] == [9, 19, 28, 38]


def test_the_rule_places_as_many_as_it_says():
    shares = (0, 0.125, 0.25, 0.5)
    for layers, attention, channel in itertools.product(range(1, 33), shares, shares):
        pattern = even(layers, attention, channel)

        assert len(pattern) == layers
        assert pattern.count("*") == round(layers * attention)
        assert pattern.count("-") == min(round(layers * channel), layers - pattern.count("*"))
