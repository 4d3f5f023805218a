"""The staged MetaFormer space: a pyramid, each stage with one mixer, tokens merged between stages.

"MetaFormer Baselines for Vision" (Yu et al., 2024): early stages see many tokens and do well with
cheap mixers, late ones see few. Each stage is twice as wide as the one before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ..errors import SpecError
from ..spec import ArchSpec, BlockSpec, LayerSpec, Scalar, Signature, StageSpec
from .metaformer import MIXERS
from .space import OneOf, Space

STAGES = 3
STAGED_MIXERS = MIXERS | {
    "identity": lambda _: BlockSpec("identity"),
    "random": lambda _: BlockSpec("random"),
    "simple_attention": lambda _: BlockSpec.of("simple_attention", heads=4),
    "manhattan": lambda _: BlockSpec.of(
        "manhattan", heads=4, reach=4, decomposed=True, inside=True
    ),
}


def decode(genes: Mapping[str, Scalar], signature: Signature) -> ArchSpec:
    """The architecture that the genes mean for images of this signature. Raises SpecError where the
    image is too small to be merged as often."""
    count, width, patch = (cast(int, genes[name]) for name in ("stages", "width", "patch"))
    scale = patch * 2 ** (count - 1)
    if signature.image[1] % scale or signature.image[2] % scale:
        raise SpecError(f"an image of {signature.image} has no {count} stages of {patch}", "stages")
    norm = BlockSpec(str(genes["norm"]))
    stages = []
    for at in range(count):
        wide = width * 2**at
        layer = LayerSpec(
            STAGED_MIXERS[str(genes[f"mixer{at}"])](wide),
            BlockSpec.of("mlp", hidden=wide * cast(int, genes["ratio"]), activation="gelu"),
            norm,
            scale=cast(float, genes["scale"]),
        )
        depth = cast(int, genes[f"depth{at}"])
        stages.append(StageSpec(wide, (layer,) * depth, merge=2 if at else 1))
    channels, height, across = signature.image
    stem = BlockSpec.of(
        "image", channels=channels, height=height, width=across, patch=patch, positions=True
    )
    head = BlockSpec.of("classes", classes=signature.classes)
    return ArchSpec(stem, tuple(stages), norm, head)


def per_stage(name: str, choices: tuple[Scalar, ...]) -> tuple[OneOf, ...]:
    """A knob for each stage, on where there are as many."""
    return tuple(
        OneOf(f"{name}{at}", choices, when={"stages": tuple(range(at + 1, STAGES + 1))})
        for at in range(STAGES)
    )


SPACE = Space(
    name="metaformer_staged",
    genes=(
        OneOf("patch", (1, 2)),
        OneOf("width", (8, 16, 32)),
        OneOf("norm", ("layer", "rms")),
        OneOf("ratio", (1, 2, 4)),
        OneOf("scale", (0.0, 0.1)),
        OneOf("stages", tuple(range(1, STAGES + 1))),
        *per_stage("mixer", tuple(STAGED_MIXERS)),
        *per_stage("depth", (1, 2)),
    ),
    decode=decode,
)
