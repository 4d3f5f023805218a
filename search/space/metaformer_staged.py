"""The staged MetaFormer space: a pyramid, each stage with one mixer, tokens merged between stages.

"MetaFormer Baselines for Vision" (Yu et al., 2024): early stages see many tokens and do well with
cheap mixers, late ones see few. Each stage is twice as wide as the one before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ..spec import ArchSpec, BlockSpec, LayerSpec, Scalar, Signature, StageSpec
from .fits import Fits, check_merges, check_mixers, mixer_fits, patch_fits, stages_fit
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
    """The architecture that the genes mean for this signature. Raises SpecError where its tokens
    cannot be merged as often, or a mixer cannot stand there."""
    count, width, patch = (cast(int, genes[name]) for name in ("stages", "width", "patch"))
    check_merges(count, patch, signature)
    check_mixers([str(genes[f"mixer{at}"]) for at in range(count)], signature)
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
    return ArchSpec.of(signature, tuple(stages), patch=patch)


def per_stage(
    name: str, choices: tuple[Scalar, ...], fits: Fits | None = None
) -> tuple[OneOf, ...]:
    """A knob for each stage, on where there are as many."""
    return tuple(
        OneOf(f"{name}{at}", choices, {"stages": tuple(range(at + 1, STAGES + 1))}, fits)
        for at in range(STAGES)
    )


SPACE = Space(
    name="metaformer_staged",
    genes=(
        OneOf("patch", (1, 2), fits=patch_fits),
        OneOf("width", (8, 16, 32)),
        OneOf("norm", ("layer", "rms")),
        OneOf("ratio", (1, 2, 4)),
        OneOf("scale", (0.0, 0.1)),
        OneOf("stages", tuple(range(1, STAGES + 1)), fits=stages_fit),
        *per_stage("mixer", tuple(STAGED_MIXERS), mixer_fits),
        *per_stage("depth", (1, 2)),
    ),
    decode=decode,
)
