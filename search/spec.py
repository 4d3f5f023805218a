"""`ArchSpec`: an architecture as data. Frozen, typed, one canonical JSON, one fingerprint.

    stem -> stages of layers -> norm -> head

It describes; it does not build, and must not know torch: a client that stores or compares
architectures loads nothing heavy. Next: `model.py` makes a module of one, `space/` makes them,
`signature.py` is what a task asks of them, `spec_json.py` reads and writes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from .errors import SpecError
from .signature import PATCHED, Signature
from .spec_json import Scalar, canonical_json, fields_of, list_of, parse_json, positive, text_of
from .spec_parts import BlockSpec, LayerSpec, StageSpec, brief

__all__ = ["ArchSpec", "BlockSpec", "LayerSpec", "Scalar", "Signature", "StageSpec"]

SIDES = ("height", "width")
SCHEMAS = (1, 2)  # 1: image classifiers of one stage, pre-norm, without layer scale


@dataclass(frozen=True)
class ArchSpec:
    """A whole architecture: `stem` makes tokens of what comes in, `stages` change them, `norm`
    stands behind the last layer, `head` reads them. What stems and heads there are: `ends/`."""

    stem: BlockSpec
    stages: tuple[StageSpec, ...]
    norm: BlockSpec
    head: BlockSpec

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages or ()))
        if not self.stages or self.stages[0].merge != 1:
            raise SpecError("wanted a stage or more, the first of which merges nothing", "stages")

    @classmethod
    def of(
        cls,
        signature: Signature,
        stages: tuple[StageSpec, ...],
        *,
        patch: int = 1,
        norm: BlockSpec | None = None,
        tied: bool = False,
        hidden: int = 0,
    ) -> ArchSpec:
        """These stages between the stem and the head that a task fixes, and what it leaves open:
        `patch`, the side of a patch, where the stem has any; `norm`, behind the last layer (that of
        the last layer); `tied`, whether a language model has one table for both its ends; `hidden`,
        of the head `unfold` (as wide as the last stage). Tokens are told where they stand.

        Raises SpecError where there is no stage, or the patch does not divide what comes in."""
        stages = tuple(stages or ())
        if not stages:
            raise SpecError("wanted a stage or more", "stages")
        last = stages[-1]
        patched = signature.stem.name in PATCHED
        if patched and any(side % positive(patch, "patch") for side in signature.sides):
            sides = " x ".join(map(str, signature.sides))
            raise SpecError(f"{patch} does not divide inputs of {sides}", "patch")
        left_open: dict[str, dict[str, Scalar]] = {
            **{name: {"positions": True, "patch": patch} for name in PATCHED},
            "tokens": {"positions": True},
            "language": {"tied": tied},
            "unfold": {"hidden": hidden or last.width},
        }
        stem, head = (
            BlockSpec.of(block.name, **dict(block.settings), **left_open.get(block.name, {}))
            for block in (signature.stem, signature.head)
        )
        usual = last.layers[-1].norm if last.layers else BlockSpec("layer")
        return cls(stem, stages, norm or usual, head)

    @classmethod
    def of_images(
        cls,
        image: tuple[int, int, int],
        classes: int,
        patch: int,
        width: int,
        layers: tuple[LayerSpec, ...],
    ) -> ArchSpec:
        """A classifier of images of one stage: patches of `patch` x `patch` pixels of an image
        `(channels, height, width)` become tokens of `width` numbers, pass `layers`, and are
        averaged into `classes`. Behind them stands the norm of the last layer.

        Sizes are positive; height and width are multiples of the patch. Raises SpecError otherwise.
        """
        for name, size in (("classes", classes), ("patch", patch), ("width", width)):
            positive(size, name)
        signature = Signature.of_images(image, classes)
        return cls.of(signature, (StageSpec(width, layers),), patch=patch)

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        """Of all stages."""
        return tuple(layer for stage in self.stages for layer in stage.layers)

    @property
    def signature(self) -> Signature | None:
        """What it takes and gives, as a task would say it. None where a stem or head of ours lacks
        what makes it one."""
        return Signature.within(self.stem, self.head)

    def paths(self) -> Iterator[str]:
        """The path of each layer, for messages."""
        for s, stage in enumerate(self.stages):
            of = "" if len(self.stages) == 1 else f"stages[{s}]."
            yield from (f"{of}layers[{at}]" for at in range(len(stage.layers)))

    def short(self) -> str:
        """A form for people: patch, width and norms, then each layer's mixer and channel mixer.
        It is no identity: of a block with several settings one is shown, or none.

        >>> layer = LayerSpec(BlockSpec.of("pool", size=3), BlockSpec.of("mlp", ratio=2), "rms")
        >>> ArchSpec.of_images((1, 8, 8), 10, 2, 32, (layer, layer)).short()
        'p2 w32 rms | pool3 mlp2 | pool3 mlp2'
        """
        return self._short

    @cached_property
    def _short(self) -> str:
        stem = dict(self.stem.settings)
        parts = [f"p{stem['patch']}" if "patch" in stem else self.stem.name]
        for stage in self.stages:
            norms = "/".join(dict.fromkeys(layer.norm.name for layer in stage.layers))
            merged = "" if stage.merge == 1 else f"m{stage.merge}"
            parts[-1] = " ".join(filter(None, (parts[-1], merged, f"w{stage.width}", norms)))
            for layer in stage.layers:
                blocks = [brief(b) for b in (layer.mixer, layer.channel) if b is not None]
                marks = [] if layer.residual == "pre" else [layer.residual]
                parts.append(" ".join([*marks, *blocks]))
            parts.append("")
        return " | ".join(filter(None, parts))

    @property
    def schema(self) -> int:
        """The oldest schema that can say it: what was said once keeps its fingerprint."""
        (stage, *more), stem = self.stages, dict(self.stem.settings)
        image = {"channels", "height", "width", "patch", "positions"}
        last = stage.layers[-1].norm if stage.layers else BlockSpec("layer")
        plain = (
            not more
            and self.stem.name == "image"
            and set(stem) == image
            and stem["positions"] is True
            and [name for name, _ in self.head.settings] == ["classes"]
            and self.head.name == "classes"
            and self.norm == last
            and all(type(stem[name]) is int for name in image - {"positions"})
            and cast(int, stem["patch"]) > 0
            and not any(cast(int, stem[side]) % cast(int, stem["patch"]) for side in SIDES)
            and all(layer.plain for layer in stage.layers)
        )
        return 1 if plain else 2

    def to_dict(self) -> dict[str, Any]:
        if self.schema == 1:
            return _first(self)
        return {
            "schema": 2,
            "stem": self.stem.to_dict(),
            "stages": [stage.to_dict() for stage in self.stages],
            "norm": self.norm.to_dict(),
            "head": self.head.to_dict(),
        }

    def to_json(self) -> str:
        """The canonical JSON: sorted keys, no spaces; equal architectures are equal text."""
        return self._json

    def fingerprint(self) -> str:
        """`a1:` and the SHA-256 of the canonical JSON."""
        return self._fingerprint

    @cached_property
    def _json(self) -> str:  # it is asked for again and again, and what is frozen keeps it
        return canonical_json(self.to_dict())

    @cached_property
    def _fingerprint(self) -> str:
        return "a1:" + hashlib.sha256(self._json.encode()).hexdigest()

    @classmethod
    def from_dict(cls, data: object) -> ArchSpec:
        """Raises SpecError with the path of what is wrong. Names of blocks are checked by
        `build`, which loads them."""
        schema = data.get("schema") if isinstance(data, Mapping) else 1
        if schema not in SCHEMAS or type(schema) is not int:
            raise SpecError(f"{schema!r} is not known here, only {SCHEMAS}", "schema")
        if schema == 1:
            return _from_first(data)
        given = fields_of(data, {"schema", "stem", "stages", "norm", "head"}, "")
        stages = tuple(
            StageSpec.from_dict(stage, f"stages[{at}]")
            for at, stage in enumerate(list_of(given["stages"], "stages"))
        )
        stem, norm, head = (BlockSpec.from_dict(given[n], n) for n in ("stem", "norm", "head"))
        return cls(stem, stages, norm, head)

    @classmethod
    def from_json(cls, text: str) -> ArchSpec:
        """The inverse of `to_json`; any spelling of the same JSON will do. Raises SpecError."""
        return cls.from_dict(parse_json(text))


def _first(spec: ArchSpec) -> dict[str, Any]:
    """Schema 1 of a spec that it can say."""
    (stage,), stem = spec.stages, dict(spec.stem.settings)
    layers = [{**layer.to_dict(), "norm": layer.norm.name} for layer in stage.layers]
    return {
        "schema": 1,
        "image": [stem["channels"], stem["height"], stem["width"]],
        "classes": dict(spec.head.settings)["classes"],
        "patch": stem["patch"],
        "width": stage.width,
        "layers": [{k: layer[k] for k in ("mixer", "channel", "norm")} for layer in layers],
    }


def _from_first(data: object) -> ArchSpec:
    given = fields_of(data, {"schema", "image", "classes", "patch", "width", "layers"}, "")
    image, layers = (list_of(given[name], name) for name in ("image", "layers"))
    made = []
    for at, layer in enumerate(layers):
        field = f"layers[{at}]"
        parts = fields_of(layer, {"mixer", "channel", "norm"}, field)
        norm = BlockSpec(text_of(parts["norm"], "the name of a norm", f"{field}.norm"))
        mixer = BlockSpec.from_dict(parts["mixer"], f"{field}.mixer")
        channel = BlockSpec.from_dict(parts["channel"], f"{field}.channel")
        made.append(LayerSpec(mixer, channel, norm))
    sizes = (given["classes"], given["patch"], given["width"])
    return ArchSpec.of_images(tuple(image), *sizes, tuple(made))
