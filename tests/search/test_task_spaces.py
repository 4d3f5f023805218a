"""Spaces for every kind of task: what they decode builds and trains, what cannot be is a misfit."""

import itertools
import random

import pytest
import torch
from torch.nn import functional as F

from formwright.search import SPACES, ArchSpec, BlockSpec, SpecError, build, canonical
from formwright.search.blocks import BLOCKS, Causal, Kind
from formwright.search.ends import STEMS
from formwright.search.layout import lay_out
from formwright.search.space import OneOf, Signature, Space
from formwright.search.space.fits import AHEAD, PLANE
from formwright.search.space.hybrid_mamba import placed
from formwright.search.space.metaformer_staged import STAGED_MIXERS

LENGTH, CLASSES = 12, BlockSpec.of("classes", classes=3)
SIGNATURES = {
    "recall": Signature.of_tokens(16, LENGTH, head=BlockSpec("language")),
    "unfold": Signature.of_tokens(
        16, LENGTH, head=BlockSpec.of("unfold", classes=16, length=LENGTH)
    ),
    "text": Signature.of_tokens(16, LENGTH, causal=False, head=CLASSES),
    "tags": Signature.of_tokens(
        16, LENGTH, causal=False, head=BlockSpec.of("token_classes", classes=3)
    ),
    "series": Signature.of_series(2, 16, head=CLASSES),
    "images": Signature.of_images((1, 8, 8), 3),
    "odd images": Signature.of_images((1, 5, 5), 3),
}
DRAWS = 12
every_space = pytest.mark.parametrize("name", SPACES.names())
every_signature = pytest.mark.parametrize("kind", SIGNATURES)


def tried(spec):
    """What a model of it says of two inputs."""
    stem = STEMS.load(spec.stem.name)
    with torch.no_grad():
        return build(spec)(stem.example(lay_out(spec).stem_config, 2))


@every_signature
@every_space
def test_what_is_decoded_is_of_the_signature_and_runs(name, kind):
    signature, rng = SIGNATURES[kind], random.Random(0)
    space = SPACES.load(name).fitted(signature)
    made = 0
    for _ in range(DRAWS):
        try:
            spec = space.decode(space.sample(rng), signature)
        except SpecError:
            assert name == "metaformer_staged"  # stages and patches decide together
            continue
        made += 1
        per_token = {"recall": (LENGTH,), "tags": (LENGTH,), "unfold": (LENGTH,)}
        assert spec.signature == signature
        assert ArchSpec.from_json(canonical(spec).to_json()).signature == signature
        assert tried(spec).shape == (2, *per_token.get(kind, ()), signature.classes)
    assert made > 1


@every_signature
@every_space
def test_without_being_fitted_it_builds_or_says_why_not(name, kind):
    signature, rng = SIGNATURES[kind], random.Random(1)
    space = SPACES.load(name)
    for _ in range(2 * DRAWS):
        try:
            spec = space.decode(space.sample(rng), signature)
        except SpecError:
            continue
        build(spec)


@every_space
def test_patches_of_tokens_are_one_architecture(name):
    space, signature = SPACES.load(name), SIGNATURES["recall"]
    fitted = space.fitted(signature)
    genes = fitted.sample(random.Random(0))
    one, two = (space.decode({**genes, "patch": patch}, signature) for patch in (1, 2))

    assert one == two
    assert fitted.genes[0].choices == (1,)
    if name != "metaformer_staged":
        assert fitted.size() * 2 == space.size()
    assert space.fitted(SIGNATURES["images"]).genes == space.genes
    assert space.fitted(SIGNATURES["odd images"]).genes[0].choices == (1,)


# --- stages ---------------------------------------------------------------------------------------

STAGED = SPACES.load("metaformer_staged")


def staged(kind, **genes):
    first = {gene.name: gene.choices[0] for gene in STAGED.genes}
    return STAGED.decode({**first, **genes}, SIGNATURES[kind])


def test_sequences_are_merged_where_that_makes_sense():
    spec = staged("text", stages=3, mixer1="conv", mixer2="random")

    assert [stage.site.grid for stage in lay_out(spec).stages] == [(12,), (6,), (3,)]
    assert tried(spec).shape == (2, 3)
    assert lay_out(staged("series", stages=3, patch=2)).stages[-1].site.grid == (2,)


@pytest.mark.parametrize(
    ("kind", "genes", "field", "said"),
    [
        ("recall", {"stages": 2}, "stages", "no token sees a later one"),
        ("unfold", {"stages": 3}, "stages", "no token sees a later one"),
        ("tags", {"stages": 2}, "stages", "each token is asked"),
        ("odd images", {"stages": 2}, "stages", "have no 2 stages of patches of 1"),
        ("recall", {"mixer0": "simple_attention"}, "mixer0", "sees later tokens"),
        ("text", {"stages": 2, "mixer1": "manhattan"}, "mixer1", "wants images, not 12 tokens"),
    ],
)
def test_what_cannot_be_is_a_misfit(kind, genes, field, said):
    with pytest.raises(SpecError, match=said) as caught:
        staged(kind, **genes)

    assert caught.value.field == field


def test_fitted_spaces_leave_out_what_is_a_misfit_by_itself():
    choices = {g.name: g.choices for g in STAGED.fitted(SIGNATURES["recall"]).genes}
    text = {g.name: g.choices for g in STAGED.fitted(SIGNATURES["text"]).genes}

    assert choices["stages"] == (1,)
    assert set(STAGED_MIXERS) - set(choices["mixer0"]) == {"simple_attention", "manhattan"}
    assert text["stages"] == (1, 2, 3)
    assert set(STAGED_MIXERS) - set(text["mixer0"]) == {"manhattan"}


def test_a_knob_of_which_nothing_fits():
    space = Space("s", (OneOf("a", (1, 2), fits=lambda a, _: a > 2),), STAGED.decode)
    with pytest.raises(SpecError, match=r"a: none of 1, 2 fits 12 causal tokens"):
        space.fitted(SIGNATURES["recall"])


def test_mixers_are_as_their_blocks_say():
    mixers = [block for n in BLOCKS.names() if (block := BLOCKS.load(n)).kind == Kind.MIXER]

    assert {b.name for b in mixers if b.causal == Causal.NEVER} == set(AHEAD)
    assert {b.name for b in mixers if 1 not in b.grids} == set(PLANE)


# --- hybrids --------------------------------------------------------------------------------------

HYBRID = SPACES.load("hybrid_mamba").restricted(
    width=16, norm="rms", heads=2, kv_heads=1, positions="rotary", ratio=1, expand=1, state=8
)


def patterns():
    """Genes of each pattern that the space can place."""
    knobs = [g for g in HYBRID.genes if g.name in ("depth", "attention", "channel", "place")]
    found = {}
    for choice in itertools.product(*(g.choices for g in knobs)):
        genes = dict(zip((g.name for g in knobs), choice, strict=True))
        found.setdefault(placed(genes), genes)
    return found


def test_every_pattern_of_a_hybrid_trains_on_recall():
    first = {gene.name: gene.choices[-1] for gene in HYBRID.genes}
    signature = SIGNATURES["recall"]
    tokens = torch.randint(16, (4, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    assert len(patterns()) > 60
    for pattern, genes in patterns().items():
        torch.manual_seed(0)
        model = build(HYBRID.decode({**first, **genes}, signature))
        losses = []
        for _ in range(2):
            loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
            losses.append(loss)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for weight, gradient in zip(model.parameters(), gradients, strict=True):
                    assert gradient.abs().max() > 0, pattern
                    weight -= 0.1 * gradient
        assert losses[1] < losses[0], pattern
