"""`ArchSpec`: an architecture as data. Frozen, typed, one canonical JSON, one fingerprint.

It describes; it does not build, and must not know torch: a client that stores or compares
architectures loads nothing heavy. Next: `model.py` makes a module of one, `space/` makes them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import SpecError

SCHEMA = 1
Scalar = int | float | str | bool


@dataclass(frozen=True, eq=False)
class BlockSpec:
    """One block by name, with every setting it has: nothing is left to a default, so that equal
    blocks are equal text. `settings` is kept sorted by name.

    >>> BlockSpec.of("attention", heads=4)
    BlockSpec(name='attention', settings=(('heads', 4),))
    """

    name: str
    settings: tuple[tuple[str, Scalar], ...] = ()

    def __post_init__(self) -> None:
        settings = {name: _scalar(value, name) for name, value in self.settings}
        if len(settings) < len(tuple(self.settings)):
            raise SpecError(f"a setting is there twice: {self.settings!r}", self.name)
        object.__setattr__(self, "settings", tuple(sorted(settings.items())))

    # by text, as fingerprints are: Python takes 1, 1.0 and True for equal
    def __eq__(self, other: object) -> bool:
        return isinstance(other, BlockSpec) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    @classmethod
    def of(cls, name: str, **settings: Scalar) -> BlockSpec:
        return cls(name, tuple(settings.items()))

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "settings": dict(self.settings)}

    @classmethod
    def from_dict(cls, data: object, field: str) -> BlockSpec:
        """Raises SpecError with the path of what is wrong."""
        given = _fields(data, {"name", "settings"}, field)
        name = given["name"]
        if not isinstance(name, str):
            raise SpecError(f"wanted the name of a block, got {name!r}", f"{field}.name")
        if not isinstance(given["settings"], Mapping):
            raise SpecError(f"wanted an object, got {given['settings']!r}", f"{field}.settings")
        for key, value in given["settings"].items():
            _scalar(value, f"{field}.{key}")
        return cls(name, tuple(given["settings"].items()))


@dataclass(frozen=True)
class LayerSpec:
    """One MetaFormer layer: `x + mixer(norm(x))`, then `x + channel(norm(x))`."""

    mixer: BlockSpec
    channel: BlockSpec
    norm: str

    def to_dict(self) -> dict[str, Any]:
        mixer, channel = self.mixer.to_dict(), self.channel.to_dict()
        return {"mixer": mixer, "channel": channel, "norm": self.norm}

    @classmethod
    def from_dict(cls, data: object, field: str) -> LayerSpec:
        """Raises SpecError with the path of what is wrong."""
        given = _fields(data, {"mixer", "channel", "norm"}, field)
        if not isinstance(given["norm"], str):
            raise SpecError(f"wanted the name of a norm, got {given['norm']!r}", f"{field}.norm")
        mixer = BlockSpec.from_dict(given["mixer"], f"{field}.mixer")
        channel = BlockSpec.from_dict(given["channel"], f"{field}.channel")
        return cls(mixer, channel, given["norm"])


@dataclass(frozen=True)
class ArchSpec:
    """A classifier of images: patches of `patch` x `patch` pixels of an image `(channels, height,
    width)` become tokens of `width` numbers, pass `layers`, and are averaged into `classes`.

    Sizes are positive; height and width are multiples of the patch. Raises SpecError otherwise.
    """

    image: tuple[int, int, int]
    classes: int
    patch: int
    width: int
    layers: tuple[LayerSpec, ...]

    def __post_init__(self) -> None:
        for field in ("classes", "patch", "width"):
            _positive(getattr(self, field), field)
        object.__setattr__(self, "layers", tuple(self.layers or ()))
        for at, layer in enumerate(self.layers):
            if not isinstance(layer, LayerSpec):
                raise SpecError(f"wanted a LayerSpec, got {layer!r}", f"layers[{at}]")
        if not isinstance(self.image, tuple) or len(self.image) != 3:
            raise SpecError(f"wanted (channels, height, width), got {self.image!r}", "image")
        for at, size in enumerate(self.image):
            _positive(size, f"image[{at}]")
        if self.image[1] % self.patch or self.image[2] % self.patch:
            sides = f"{self.image[1]} x {self.image[2]}"
            raise SpecError(f"{self.patch} does not divide an image of {sides}", "patch")

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens down and across."""
        return self.image[1] // self.patch, self.image[2] // self.patch

    def short(self) -> str:
        """A form for people: patch, width and norms, then each layer's mixer and channel mixer.
        It is no identity: of a block with several settings one is shown, or none.

        >>> layer = LayerSpec(BlockSpec.of("pool", size=3), BlockSpec.of("mlp", ratio=2), "rms")
        >>> ArchSpec((1, 8, 8), 10, 2, 32, (layer, layer)).short()
        'p2 w32 rms | pool3 mlp2 | pool3 mlp2'
        """
        norms = "/".join(dict.fromkeys(layer.norm for layer in self.layers))
        head = f"p{self.patch} w{self.width} {norms}".rstrip()
        parts = [f"{_brief(layer.mixer)} {_brief(layer.channel)}" for layer in self.layers]
        return " | ".join([head, *parts])

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "image": list(self.image),
            "classes": self.classes,
            "patch": self.patch,
            "width": self.width,
            "layers": [layer.to_dict() for layer in self.layers],
        }

    def to_json(self) -> str:
        """The canonical JSON: sorted keys, no spaces; equal architectures are equal text."""
        return canonical_json(self.to_dict())

    def fingerprint(self) -> str:
        """`a1:` and the SHA-256 of the canonical JSON."""
        return "a1:" + hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_dict(cls, data: object) -> ArchSpec:
        """Raises SpecError with the path of what is wrong. Names of blocks are checked by
        `build`, which loads them."""
        fields = {"schema", "image", "classes", "patch", "width", "layers"}
        given = _fields(data, fields, "")
        if given["schema"] != SCHEMA or type(given["schema"]) is not int:
            raise SpecError(f"{given['schema']!r} is not known here, only {SCHEMA}", "schema")
        for field in ("image", "layers"):
            if not isinstance(given[field], list | tuple):
                raise SpecError(f"wanted a list, got {given[field]!r}", field)
        layers = tuple(
            LayerSpec.from_dict(layer, f"layers[{at}]") for at, layer in enumerate(given["layers"])
        )
        sizes = (given["classes"], given["patch"], given["width"])
        return cls(tuple(given["image"]), *sizes, layers)

    @classmethod
    def from_json(cls, text: str) -> ArchSpec:
        """The inverse of `to_json`; any spelling of the same JSON will do. Raises SpecError."""
        return cls.from_dict(parse_json(text))


def canonical_json(data: object) -> str:
    """JSON in the one spelling that fingerprints are taken of."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def parse_json(text: str) -> object:
    """Raises SpecError where the text is not JSON or names a key twice."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except SpecError:
        raise
    except (
        ValueError,
        TypeError,
        RecursionError,
    ) as error:  # what is no JSON, or an endless number
        raise SpecError(f"not JSON: {error}") from error


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made: dict[str, object] = {}
    for key, value in pairs:
        if key in made:
            raise SpecError(f"the key {key!r} is there twice")
        made[key] = value
    return made


def _fields(data: object, wanted: set[str], field: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise SpecError(f"wanted an object with {', '.join(sorted(wanted))}, got {data!r}", field)
    if missing := wanted - set(data):
        raise SpecError(f"missing: {', '.join(sorted(missing))}", field)
    if extra := set(data) - wanted:
        names = ", ".join(sorted(map(str, extra)))
        raise SpecError(f"not known: {names}; known: {', '.join(sorted(wanted))}", field)
    return data


def _positive(value: object, field: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SpecError(f"wanted a positive whole number, got {value!r}", field)


def _scalar(value: object, field: str) -> Scalar:
    """The value as a plain number, string or boolean (not an enum's, not numpy's), so that equal
    settings are equal text. Raises SpecError for anything else, and what is not finite."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    raise SpecError(f"wanted a finite number, a string or a boolean, got {value!r}", field)


BRIEF = ("heads", "hidden", "size")  # what people look for, where there are several settings


def _brief(block: BlockSpec) -> str:
    settings = dict(block.settings)
    shown = list(settings) if len(settings) == 1 else [name for name in BRIEF if name in settings]
    return block.name + (str(settings[shown[0]]) if shown else "")
