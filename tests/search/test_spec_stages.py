"""The second schema: stems, stages, residual forms; what the first could say keeps its text."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formwright.search.errors import SpecError
from formwright.search.spec import ArchSpec, BlockSpec, LayerSpec, StageSpec

MIXER = BlockSpec.of("mamba2", expand=2, head_width=16, state=16, conv=4, chunk=16)
MLP = BlockSpec.of("mlp", hidden=32, activation="gelu")
SPEC = ArchSpec(
    stem=BlockSpec.of("tokens", vocabulary=64, length=32, causal=True, positions=False),
    stages=(
        StageSpec(16, (LayerSpec(MIXER, None, "rms"), LayerSpec(None, MLP, "rms"))),
        StageSpec(32, (LayerSpec(MIXER, MLP, "layer", "parallel", 0.1),)),
    ),
    norm=BlockSpec("rms"),
    head=BlockSpec.of("language", tied=False),
)
# Searches that were stored know their architectures by this: it may never change.
FINGERPRINT = "a1:421e360b40a51d504adc49268a7ea39148d2259add71410b2eda8757805d894c"

norms = st.builds(BlockSpec, st.sampled_from(["rms", "layer"]))
blocks = st.sampled_from([None, MIXER, MLP])
layers = st.builds(
    LayerSpec, blocks, blocks, norms, st.sampled_from(["pre", "post", "parallel"]), st.floats(0, 1)
)


@given(st.lists(st.builds(StageSpec, st.integers(1, 64), st.lists(layers, max_size=2)), max_size=3))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_there_and_back(stages):
    first = StageSpec(8, ())
    spec = ArchSpec(SPEC.stem, (first, *stages), SPEC.norm, SPEC.head)

    again = ArchSpec.from_json(spec.to_json())

    assert again == spec
    assert again.fingerprint() == spec.fingerprint()


def test_the_fingerprint_is_pinned():
    assert SPEC.fingerprint() == FINGERPRINT
    assert SPEC.schema == 2


PLAIN = LayerSpec(MIXER, MLP, "rms")


def test_what_the_first_schema_can_say_is_said_in_it():
    spec = ArchSpec.of_images((1, 8, 8), 10, 2, 16, (PLAIN,))
    parts = ArchSpec(spec.stem, spec.stages, spec.norm, spec.head)

    assert spec.schema == 1
    assert parts == spec
    assert json.loads(spec.to_json())["schema"] == 1


@pytest.mark.parametrize(
    "layer",
    [
        LayerSpec(MIXER, None, "rms"),
        LayerSpec(None, MLP, "rms"),
        LayerSpec(MIXER, MLP, "rms", "post"),
        LayerSpec(MIXER, MLP, "rms", scale=0.1),
        LayerSpec(MIXER, MLP, BlockSpec.of("prepbn", steps=4)),
    ],
)
def test_what_it_cannot_say_is_said_in_the_second(layer):
    spec = ArchSpec.of_images((1, 8, 8), 10, 2, 16, (layer, PLAIN))

    assert spec.schema == 2
    assert ArchSpec.from_json(spec.to_json()) == spec


def test_another_norm_at_the_end_is_another_architecture():
    spec = ArchSpec.of_images((1, 8, 8), 10, 2, 16, (PLAIN,))
    other = ArchSpec(spec.stem, spec.stages, BlockSpec("layer"), spec.head)

    assert other.schema == 2
    assert other.fingerprint() != spec.fingerprint()


def test_the_short_form():
    assert SPEC.short() == ("tokens w16 rms | mamba2 | mlp32 | w32 layer | parallel mamba2 mlp32")


def altered(*path):
    """The dictionary of SPEC with the last of `path` where the rest leads."""
    *way, key, value = path
    data = found = json.loads(SPEC.to_json())
    for step in way:
        found = found[step]
    found[key] = value
    return data


LAYER = ("stages", 1, "layers", 0)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (("stages", []), "stages"),
        (("stages", 0, "merge", 2), "stages"),
        (("stages", {}), "stages"),
        (("stages", 1, "width", 0), "stages[1].width"),
        (("stages", 1, "merge", True), "stages[1].merge"),
        (("stages", 1, "layers", 3), "stages[1].layers"),
        (("stages", 1, "depth", 3), "stages[1]"),
        ((*LAYER, "residual", "around"), "stages[1].layers[0].residual"),
        ((*LAYER, "scale", -1), "stages[1].layers[0].scale"),
        ((*LAYER, "scale", "1"), "stages[1].layers[0].scale"),
        ((*LAYER, "scale", True), "stages[1].layers[0].scale"),
        ((*LAYER, "norm", "rms"), "stages[1].layers[0].norm"),
        ((*LAYER, "mixer", "mlp"), "stages[1].layers[0].mixer"),
        (("stem", None), "stem"),
        (("head", "name", 3), "head.name"),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_what_is_malformed_is_named(path, field):
    with pytest.raises(SpecError) as caught:
        ArchSpec.from_dict(altered(*path))

    assert caught.value.field == field
    assert str(caught.value).startswith(field)


@pytest.mark.parametrize("scale", [10**400, float("nan"), float("inf"), "much", None])
def test_a_scale_that_is_no_number_is_refused(scale):
    with pytest.raises(SpecError, match="scale: wanted a finite number"):
        LayerSpec(MIXER, MLP, "rms", scale=scale)


def test_zero_has_one_spelling():
    one, other = (LayerSpec(MIXER, None, "rms", scale=zero) for zero in (0.0, -0.0))

    assert json.dumps(one.to_dict()) == json.dumps(other.to_dict())


@pytest.mark.parametrize("patch", [3, 0])
def test_what_the_first_schema_refuses_is_said_in_the_second(patch):
    sizes = {"channels": 1, "height": 8, "width": 8, "patch": patch, "positions": True}
    stem = BlockSpec.of("image", **sizes)
    spec = ArchSpec(stem, (StageSpec(8, (PLAIN,)),), PLAIN.norm, BlockSpec.of("classes", classes=2))

    assert ArchSpec.from_json(spec.to_json()) == spec
