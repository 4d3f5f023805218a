"""`Signature`: what a task fixes of an architecture, its stem and its head; the rest is for the
space to choose.

It must not know torch. Next: `spec.py`, whose `ArchSpec.of` completes one; `tasks/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from .errors import SpecError
from .spec_json import Scalar, positive
from .spec_parts import BlockSpec

FIXED: Mapping[str, tuple[str, ...]] = {
    # of our stems and heads, the settings that a task decides; of others, all are
    "image": ("channels", "height", "width"),
    "series": ("channels", "length", "causal"),
    "tokens": ("vocabulary", "length", "causal"),
    "classes": ("classes",),
    "token_classes": ("classes",),
    "language": (),
    "unfold": ("classes", "length"),
}
PATCHED = ("image", "series")  # stems whose tokens are patches
PER_TOKEN = ("language", "token_classes")  # heads that say something of each token


@dataclass(frozen=True)
class Signature:
    """A stem and a head with what a task fixes of each, and nothing else. Equal ones take the same
    inputs and give the same outputs. Raises SpecError for settings of ours that are others.

    >>> str(Signature.of_images((1, 8, 8), 10))
    'images (1, 8, 8) in 10 classes'
    >>> str(Signature.of_tokens(16, 127, head=BlockSpec("language")))
    '127 causal tokens of 16 kinds, the next one of each'
    """

    stem: BlockSpec
    head: BlockSpec

    def __post_init__(self) -> None:
        for field, block in (("stem", self.stem), ("head", self.head)):
            if not isinstance(block, BlockSpec):
                raise SpecError(f"wanted a BlockSpec, got {block!r}", field)
            settings = dict(block.settings)
            wanted = FIXED.get(block.name, tuple(settings))
            if set(settings) != set(wanted):
                said = ", ".join(wanted) or "nothing"
                raise SpecError(f"of {block.name} a task fixes {said}; got {settings}", field)
            for name, value in settings.items() if block.name in FIXED else ():
                if name != "causal":
                    positive(value, f"{field}.{name}")
                elif not isinstance(value, bool):
                    raise SpecError(f"wanted True or False, got {value!r}", f"{field}.{name}")

    @classmethod
    def of_images(cls, image: tuple[int, int, int], classes: int) -> Signature:
        """Images `(channels, height, width)`, each of one of `classes`. Raises SpecError unless all
        are positive whole numbers."""
        positive(classes, "classes")
        if not isinstance(image, tuple) or len(image) != 3:
            raise SpecError(f"wanted (channels, height, width), got {image!r}", "image")
        channels, height, width = (positive(n, f"image[{at}]") for at, n in enumerate(image))
        stem = BlockSpec.of("image", channels=channels, height=height, width=width)
        return cls(stem, BlockSpec.of("classes", classes=classes))

    @classmethod
    def of_series(
        cls, channels: int, length: int, *, head: BlockSpec, causal: bool = False
    ) -> Signature:
        """Series of `length` values in each of `channels`."""
        return cls(BlockSpec.of("series", channels=channels, length=length, causal=causal), head)

    @classmethod
    def of_tokens(
        cls, vocabulary: int, length: int, *, head: BlockSpec, causal: bool = True
    ) -> Signature:
        """Sequences of `length` tokens, each below `vocabulary`; `causal`: none may see a later
        one. `head` has what the task fixes of it: `BlockSpec("language")` for the next token,
        `BlockSpec.of("classes", classes=2)` for one class of all."""
        stem = BlockSpec.of("tokens", vocabulary=vocabulary, length=length, causal=causal)
        return cls(stem, head)

    @classmethod
    def within(cls, stem: BlockSpec, head: BlockSpec) -> Signature | None:
        """What of these a task would fix; None where that is not all there."""
        try:
            return cls(_fixed(stem), _fixed(head))
        except (KeyError, SpecError):
            return None

    @property
    def image(self) -> tuple[int, int, int]:
        """(channels, height, width). Raises SpecError where the inputs are no images."""
        if self.stem.name != "image":
            raise SpecError(f"wanted images, got {self}")
        sizes = dict(self.stem.settings)
        return cast(tuple[int, int, int], tuple(sizes[name] for name in FIXED["image"]))

    @property
    def classes(self) -> int:
        """Between how many answers an output chooses: classes, or the kinds of tokens. Raises
        SpecError for a head of another package that has none."""
        of = {**dict(self.stem.settings), **dict(self.head.settings)}
        name = "vocabulary" if self.head.name == "language" else "classes"
        if name not in of:
            raise SpecError(f"wanted a head that chooses, got {self}")
        return cast(int, of[name])

    @property
    def causal(self) -> bool:
        """Whether no token may see a later one."""
        return dict(self.stem.settings).get("causal", False) is True

    @property
    def per_token(self) -> bool:
        """Whether the head says something of each token, so that none may be merged."""
        return self.head.name in PER_TOKEN

    @property
    def sides(self) -> tuple[int, ...]:
        """How the inputs lie, before anything is cut into patches: (height, width) or (length,).
        Nothing for a stem of another package: only that knows."""
        sizes = dict(self.stem.settings)
        known = {"image": ("height", "width"), "series": ("length",), "tokens": ("length",)}
        return tuple(cast(int, sizes[name]) for name in known.get(self.stem.name, ()))

    def __str__(self) -> str:
        """In words, for messages."""
        return f"{_inputs(self.stem)}{_outputs(self.head)}"


def _fixed(block: BlockSpec) -> BlockSpec:
    settings = dict(block.settings)
    wanted = FIXED.get(block.name, tuple(settings))
    return BlockSpec.of(block.name, **{name: settings[name] for name in wanted})


def _inputs(stem: BlockSpec) -> str:
    of = dict(stem.settings)
    causal = "causal " if of.get("causal") else ""
    if stem.name == "image":
        return f"images ({of['channels']}, {of['height']}, {of['width']})"
    if stem.name == "series":
        return f"{causal}series ({of['channels']}, {of['length']})"
    if stem.name == "tokens":
        return f"{of['length']} {causal}tokens of {of['vocabulary']} kinds"
    return _named(stem)


def _outputs(head: BlockSpec) -> str:
    of: Mapping[str, Scalar] = dict(head.settings)
    words = {
        "classes": " in {classes} classes",
        "token_classes": ", each in {classes} classes",
        "language": ", the next one of each",
        "unfold": ", {length} of {classes} kinds from the last",
    }
    return words[head.name].format(**of) if head.name in words else f" for {_named(head)}"


def _named(block: BlockSpec) -> str:
    settings = ", ".join(f"{name}={value!r}" for name, value in block.settings)
    return f"{block.name}({settings})"
