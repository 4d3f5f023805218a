"""What an `ArchSpec` is made of: blocks by name, layers of blocks, stages of layers.

They describe; they do not build, and must not know torch. Next: `spec.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import SpecError
from .spec_json import Scalar, fields_of, inside, list_of, positive, scalar, text_of

RESIDUALS = ("pre", "post", "parallel")


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
        settings = {name: scalar(value, name) for name, value in self.settings}
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
        given = fields_of(data, {"name", "settings"}, field)
        name = text_of(given["name"], "the name of a block", f"{field}.name")
        if not isinstance(given["settings"], Mapping):
            raise SpecError(f"wanted an object, got {given['settings']!r}", f"{field}.settings")
        for key, value in given["settings"].items():
            scalar(value, f"{field}.{key}")
        return cls(name, tuple(given["settings"].items()))


@dataclass(frozen=True)
class LayerSpec:
    """One MetaFormer layer of up to two blocks:

        pre        x = x + mixer(norm(x)),   x = x + channel(norm(x))
        post       x = norm(x + mixer(x)),   x = norm(x + channel(x))
        parallel   x = x + mixer(n) + channel(n),   n = norm(x)

    A block that is None is not there, nor is its norm. With a `scale` above 0 what a block adds is
    multiplied by a trained vector that starts there. A norm may be given by its name.
    """

    mixer: BlockSpec | None
    channel: BlockSpec | None
    norm: BlockSpec
    residual: str = "pre"
    scale: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.norm, str):
            object.__setattr__(self, "norm", BlockSpec(self.norm))
        try:
            scale = float(self.scale) + 0.0  # -0.0 is 0
        except (OverflowError, TypeError, ValueError):
            scale = math.inf
        if not math.isfinite(scale):
            raise SpecError(f"wanted a finite number, got {str(self.scale)[:40]}", "scale")
        object.__setattr__(self, "scale", scale)
        if self.residual not in RESIDUALS:
            known = ", ".join(RESIDUALS)
            raise SpecError(f"wanted one of {known}, got {self.residual!r}", "residual")
        if self.scale < 0:
            raise SpecError(f"wanted 0 or more, got {self.scale!r}", "scale")

    @property
    def plain(self) -> bool:
        """Whether schema 1 can say it."""
        usual = self.residual == "pre" and self.scale == 0 and not self.norm.settings
        return usual and self.mixer is not None and self.channel is not None

    def to_dict(self) -> dict[str, Any]:
        return {
            "mixer": self.mixer and self.mixer.to_dict(),
            "channel": self.channel and self.channel.to_dict(),
            "norm": self.norm.to_dict(),
            "residual": self.residual,
            "scale": self.scale,
        }

    @classmethod
    def from_dict(cls, data: object, field: str) -> LayerSpec:
        """Raises SpecError with the path of what is wrong."""
        given = fields_of(data, {"mixer", "channel", "norm", "residual", "scale"}, field)
        mixer, channel = (
            None if given[at] is None else BlockSpec.from_dict(given[at], f"{field}.{at}")
            for at in ("mixer", "channel")
        )
        norm = BlockSpec.from_dict(given["norm"], f"{field}.norm")
        scale = scalar(given["scale"], f"{field}.scale")
        if isinstance(scale, str | bool):
            raise SpecError(f"wanted a number, got {scale!r}", f"{field}.scale")
        with inside(field):
            return cls(mixer, channel, norm, given["residual"], scale)


@dataclass(frozen=True)
class StageSpec:
    """Layers of one width. Tokens come in merged, `merge` (x `merge`) to one."""

    width: int
    layers: tuple[LayerSpec, ...]
    merge: int = 1

    def __post_init__(self) -> None:
        positive(self.width, "width")
        positive(self.merge, "merge")
        object.__setattr__(self, "layers", tuple(self.layers or ()))
        for at, layer in enumerate(self.layers):
            if not isinstance(layer, LayerSpec):
                raise SpecError(f"wanted a LayerSpec, got {layer!r}", f"layers[{at}]")

    def to_dict(self) -> dict[str, Any]:
        layers = [layer.to_dict() for layer in self.layers]
        return {"width": self.width, "merge": self.merge, "layers": layers}

    @classmethod
    def from_dict(cls, data: object, field: str) -> StageSpec:
        """Raises SpecError with the path of what is wrong."""
        given = fields_of(data, {"width", "merge", "layers"}, field)
        layers = [
            LayerSpec.from_dict(layer, f"{field}.layers[{at}]")
            for at, layer in enumerate(list_of(given["layers"], f"{field}.layers"))
        ]
        with inside(field):
            return cls(given["width"], tuple(layers), given["merge"])


BRIEF = ("heads", "hidden", "size")  # what people look for, where there are several settings


def brief(block: BlockSpec) -> str:
    """A block for people: its name, and one setting.

    >>> brief(BlockSpec.of("mlp", hidden=64, activation="gelu"))
    'mlp64'
    """
    settings = dict(block.settings)
    shown = list(settings) if len(settings) == 1 else [name for name in BRIEF if name in settings]
    return block.name + (str(settings[shown[0]]) if shown else "")
