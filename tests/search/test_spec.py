"""An architecture as data: one canonical text, one fingerprint, and what is wrong has a path."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formwright.search.errors import SpecError
from formwright.search.spec import ArchSpec, BlockSpec, LayerSpec
from formwright.search.spec_json import canonical_json, parse_json

SPEC = ArchSpec.of_images(
    image=(1, 8, 8),
    classes=10,
    patch=2,
    width=32,
    layers=(
        LayerSpec(BlockSpec.of("attention", heads=4), BlockSpec.of("mlp", ratio=2), "rms"),
        LayerSpec(BlockSpec.of("pool", size=3), BlockSpec.of("mlp", ratio=4), "layer"),
    ),
)
TEXT = (
    '{"classes":10,"image":[1,8,8],"layers":['
    '{"channel":{"name":"mlp","settings":{"ratio":2}},'
    '"mixer":{"name":"attention","settings":{"heads":4}},"norm":"rms"},'
    '{"channel":{"name":"mlp","settings":{"ratio":4}},'
    '"mixer":{"name":"pool","settings":{"size":3}},"norm":"layer"}],'
    '"patch":2,"schema":1,"width":32}'
)
# Searches that were stored know their architectures by this: it may never change.
FINGERPRINT = "a1:c98cd84487fb11584fb9a037f157186fdca9707e72934102f3eca3c812f50196"

names = st.text(max_size=5)
blocks = st.builds(
    lambda name, settings: BlockSpec.of(name, **settings),
    names,
    st.dictionaries(
        names.filter(lambda n: n not in ("name", "cls")),
        st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names | st.booleans(),
        max_size=3,
    ),
)
specs = st.builds(
    lambda patch, down, across, layers: ArchSpec.of_images(
        (3, patch * down, patch * across), 2, patch, 8, tuple(layers)
    ),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.lists(st.builds(LayerSpec, blocks, blocks, names), max_size=3),
)


def test_the_canonical_text():
    assert SPEC.to_json() == TEXT
    assert ArchSpec.from_json(TEXT) == SPEC


def test_the_fingerprint_is_pinned():
    assert SPEC.fingerprint() == FINGERPRINT


@given(specs)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_there_and_back(spec):
    again = ArchSpec.from_json(spec.to_json())

    assert again == spec
    assert hash(again) == hash(spec)
    assert again.to_json() == spec.to_json()
    assert again.fingerprint() == spec.fingerprint()


def test_spelling_does_not_matter():
    loose = json.dumps(
        {key: SPEC.to_dict()[key] for key in reversed(list(SPEC.to_dict()))}, indent=2
    )

    assert loose != TEXT
    assert ArchSpec.from_json(loose) == SPEC
    assert ArchSpec.from_json(loose).fingerprint() == FINGERPRINT


def test_the_order_of_settings_does_not_matter():
    one, other = BlockSpec("b", (("y", 1), ("x", 2))), BlockSpec.of("b", x=2, y=1)

    assert one == other
    assert hash(one) == hash(other)


def test_what_differs_has_another_fingerprint():
    layer = LayerSpec(BlockSpec.of("attention", heads=2), BlockSpec.of("mlp", ratio=2), "rms")
    other = ArchSpec.of_images((1, 8, 8), 10, 2, 32, (layer, SPEC.layers[1]))

    assert other != SPEC
    assert other.fingerprint() != FINGERPRINT


# --- what is wrong is named -----------------------------------------------------------------------


def altered(change):
    """The dictionary of SPEC, after `change` was run on it."""
    data = json.loads(TEXT)
    change(data)
    return data


def put(*path):
    """A change: the last of `path` is put where the rest leads."""
    *way, key, value = path

    def change(data):
        for step in way:
            data = data[step]
        data[key] = value

    return change


def take(*path):
    *way, key = path

    def change(data):
        for step in way:
            data = data[step]
        del data[key]

    return change


MIXER = ("layers", 0, "mixer")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (take("patch"), ""),
        (put("depth", 3), ""),
        (put("schema", 3), "schema"),
        (put("schema", "1"), "schema"),
        (put("image", 8), "image"),
        (put("image", [1, 8]), "image"),
        (put("image", [1, 8, 8, 8]), "image"),
        (put("image", [1, 0, 8]), "image[1]"),
        (put("image", [1, 8, 8.0]), "image[2]"),
        (put("image", [[1], 8, 8]), "image[0]"),
        (put("classes", 0), "classes"),
        (put("classes", True), "classes"),
        (put("patch", "2"), "patch"),
        (put("patch", 3), "patch"),
        (put("width", None), "width"),
        (put("width", 1.5), "width"),
        (put("layers", {}), "layers"),
        (put("layers", 1, "pool"), "layers[1]"),
        (put("layers", 1, None), "layers[1]"),
        (take("layers", 1, "norm"), "layers[1]"),
        (put("layers", 1, "skip", 1), "layers[1]"),
        (put("layers", 1, "norm", 3), "layers[1].norm"),
        (put("layers", 0, "mixer", "pool"), "layers[0].mixer"),
        (put("layers", 0, "channel", []), "layers[0].channel"),
        (take(*MIXER, "settings"), "layers[0].mixer"),
        (put(*MIXER, "heads", 4), "layers[0].mixer"),
        (put(*MIXER, "name", 4), "layers[0].mixer.name"),
        (put(*MIXER, "settings", [4]), "layers[0].mixer.settings"),
        (put(*MIXER, "settings", "heads", None), "layers[0].mixer.heads"),
        (put(*MIXER, "settings", "heads", [4]), "layers[0].mixer.heads"),
        (put(*MIXER, "settings", "heads", float("nan")), "layers[0].mixer.heads"),
        (put(*MIXER, "settings", "heads", float("inf")), "layers[0].mixer.heads"),
    ],
)
def test_what_is_malformed_is_named(change, field):
    with pytest.raises(SpecError) as caught:
        ArchSpec.from_dict(altered(change))

    assert caught.value.field == field
    assert str(caught.value).startswith(field)


@pytest.mark.parametrize("data", [None, [], "spec", 3], ids=repr)
def test_what_is_no_object_is_refused(data):
    with pytest.raises(SpecError, match="wanted an object"):
        ArchSpec.from_dict(data)


@pytest.mark.parametrize(
    "text",
    ["", "{", "{'a': 1}", '{"a": 1} 2', "[" * 100_000],
    ids=["empty", "open", "quotes", "two", "deep"],
)
def test_what_is_not_json_is_refused(text):
    with pytest.raises(SpecError, match="not JSON"):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (TEXT[:-1] + ',"width":64}', "width"),
        (TEXT.replace('"size":3', '"size":3,"size":5'), "size"),
    ],
)
def test_a_key_that_is_there_twice_is_refused(text, key):
    with pytest.raises(SpecError, match=f"the key '{key}' is there twice"):
        ArchSpec.from_json(text)


def test_canonical_json_has_no_numbers_that_are_none():
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"a": float("nan")})


@pytest.mark.parametrize("module", ["spec", "search_spec", "tasks.digits"])
def test_specs_need_nothing_heavy(module):
    code = f"import sys, formwright.search.{module}; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "formwright" in loaded
    assert not loaded & {"torch", "ray", "optuna", "grpc", "sqlalchemy", "sklearn", "numpy"}
