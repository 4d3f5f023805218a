"""What a task fixes of an architecture: its words, its equality, and what it refuses."""

import pytest

from formwright.search import ArchSpec, BlockSpec, LayerSpec, SpecError, StageSpec, build
from formwright.search.spec import Signature

LANGUAGE = BlockSpec("language")
LAYER = LayerSpec(BlockSpec.of("pool", size=3), None, "rms")
STAGE = StageSpec(8, (LAYER,))
SIGNATURES = {
    "images (3, 4, 6) in 2 classes": Signature.of_images((3, 4, 6), 2),
    "12 causal tokens of 16 kinds, the next one of each": Signature.of_tokens(
        16, 12, head=LANGUAGE
    ),
    "12 tokens of 16 kinds in 3 classes": Signature.of_tokens(
        16, 12, causal=False, head=BlockSpec.of("classes", classes=3)
    ),
    "12 causal tokens of 16 kinds, 5 of 7 kinds from the last": Signature.of_tokens(
        16, 12, head=BlockSpec.of("unfold", classes=7, length=5)
    ),
    "series (2, 48), each in 3 classes": Signature.of_series(
        2, 48, head=BlockSpec.of("token_classes", classes=3)
    ),
}


@pytest.mark.parametrize("words", SIGNATURES)
def test_an_architecture_knows_what_it_was_made_for(words):
    signature = SIGNATURES[words]
    patch = 2 if signature.stem.name in ("image", "series") else 1
    spec = ArchSpec.of(signature, (STAGE, StageSpec(4, ())), patch=patch, norm=BlockSpec("crms"))

    assert str(signature) == words
    assert spec.signature == signature
    assert ArchSpec.from_json(spec.to_json()).signature == signature
    assert spec.norm == BlockSpec("crms")
    build(spec)


def test_each_is_another():
    assert len(set(SIGNATURES.values())) == len(SIGNATURES)
    (tokens,) = [s for words, s in SIGNATURES.items() if "next one" in words]
    for other in ((16, 12, False), (16, 13, True), (17, 12, True)):
        vocabulary, length, causal = other
        assert Signature.of_tokens(vocabulary, length, causal=causal, head=LANGUAGE) != tokens


def test_what_a_space_chooses_changes_nothing():
    (images, tokens, *_) = SIGNATURES.values()
    for patch in (1, 2):
        assert ArchSpec.of(images, (STAGE,), patch=patch).signature == images
    for tied in (True, False):
        assert ArchSpec.of(tokens, (STAGE,), tied=tied).signature == tokens


def test_numbers_for_people():
    images, tokens, classified, unfolded, series = SIGNATURES.values()

    assert images.image == (3, 4, 6)
    assert [s.classes for s in SIGNATURES.values()] == [2, 16, 3, 7, 3]
    assert [s.sides for s in (images, tokens, series)] == [(4, 6), (12,), (48,)]
    assert [s.causal for s in SIGNATURES.values()] == [False, True, False, True, False]
    assert [s.per_token for s in SIGNATURES.values()] == [False, True, False, False, True]
    with pytest.raises(SpecError, match="wanted images, got 12 tokens"):
        assert classified.image
    assert unfolded != tokens


def test_stems_and_heads_of_others_are_taken_whole():
    stem, head = BlockSpec.of("graph", nodes=5, rank=2), BlockSpec.of("edges", kinds=3)
    signature = Signature(stem, head)

    assert ArchSpec.of(signature, (STAGE,)).signature == signature
    assert str(signature) == "graph(nodes=5, rank=2) for edges(kinds=3)"
    assert signature.sides == ()
    with pytest.raises(SpecError, match="wanted a head that chooses"):
        assert signature.classes


def test_what_lacks_a_setting_has_none():
    head = BlockSpec.of("classes", classes=3)

    assert (
        ArchSpec(BlockSpec.of("image", height=4), (STAGE,), BlockSpec("rms"), head).signature
        is None
    )


IMAGE = BlockSpec.of("image", channels=1, height=8, width=8)


@pytest.mark.parametrize(
    ("make", "field", "said"),
    [
        (lambda: Signature.of_images((8, 8), 10), "image", "wanted (channels, height, width)"),
        (lambda: Signature.of_images((1, 0, 8), 10), "image[1]", "wanted a positive whole"),
        (lambda: Signature.of_images((1, 8, 8), 0), "classes", "wanted a positive whole"),
        (lambda: Signature((1, 8, 8), 10), "stem", "wanted a BlockSpec, got (1, 8, 8)"),
        (lambda: Signature(IMAGE, BlockSpec("classes")), "head", "of classes a task fixes classes"),
        (
            lambda: Signature.of_tokens(16, 8, head=BlockSpec.of("language", tied=True)),
            "head",
            "of language a task fixes nothing; got {'tied': True}",
        ),
        (lambda: Signature.of_tokens(0, 8, head=LANGUAGE), "stem.vocabulary", "wanted a positive"),
        (
            lambda: Signature.of_tokens(2, 8, causal="yes", head=LANGUAGE),
            "stem.causal",
            "wanted True or False, got 'yes'",
        ),
        (lambda: ArchSpec.of(Signature.of_images((1, 8, 8), 2), ()), "stages", "a stage or more"),
        (
            lambda: ArchSpec.of(Signature.of_images((1, 8, 9), 2), (STAGE,), patch=2),
            "patch",
            "2 does not divide inputs of 8 x 9",
        ),
    ],
)
def test_what_is_wrong_is_named(make, field, said):
    with pytest.raises(SpecError) as caught:
        make()

    assert caught.value.field == field
    assert said in str(caught.value)
