"""The MetaFormer space: one residual form, any token mixer in each layer.

"MetaFormer is Actually What You Need for Vision" (Yu et al., 2022): what carries a Transformer is
`x + mixer(norm(x))`, `x + mlp(norm(x))`; the mixer is a choice. Here each layer chooses for itself.
Knobs of layers beyond the depth are off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from ..spec import ArchSpec, BlockSpec, LayerSpec, Scalar, Signature, StageSpec
from .fits import patch_fits
from .space import OneOf, Space

DEEPEST = 4

WHOLE = 1 << 20  # a span that nothing reaches

MIXERS: dict[str, Callable[[int], BlockSpec]] = {
    # name: the block for tokens of this width
    "attention": lambda width: attention(width, 4),
    "pool": lambda _: BlockSpec.of("pool", size=3),
    "conv": lambda _: BlockSpec.of("conv", size=3),
    "mamba2": lambda _: BlockSpec.of("mamba2", expand=2, head_width=16, state=16, conv=4, chunk=16),
}


def attention(width: int, heads: int, **changed: Scalar) -> BlockSpec:
    """Plain attention: heads that share the width, each with its own keys, that see everything."""
    plain = {"kv_heads": heads, "positions": "none", "span": WHOLE, **changed}
    return BlockSpec.of("attention", heads=heads, head_width=width // heads, **plain)


def decode(genes: Mapping[str, Scalar], signature: Signature) -> ArchSpec:
    """The architecture that the genes mean for this signature."""
    patch, width = cast(int, genes["patch"]), cast(int, genes["width"])
    layers = tuple(
        LayerSpec(
            mixer=MIXERS[str(genes[f"mixer{at}"])](width),
            channel=BlockSpec.of(
                "mlp", hidden=width * cast(int, genes[f"ratio{at}"]), activation="gelu"
            ),
            norm=BlockSpec(str(genes["norm"])),
        )
        for at in range(cast(int, genes["depth"]))
    )
    return ArchSpec.of(signature, (StageSpec(width, layers),), patch=patch)


def per_layer(name: str, choices: tuple[Scalar, ...]) -> tuple[OneOf, ...]:
    """A knob for each layer, on where the depth reaches it."""
    return tuple(
        OneOf(f"{name}{at}", choices, when={"depth": tuple(range(at + 1, DEEPEST + 1))})
        for at in range(DEEPEST)
    )


SPACE = Space(
    name="metaformer",
    genes=(
        OneOf("patch", (1, 2), fits=patch_fits),
        OneOf("width", (16, 32, 48, 64)),
        OneOf("norm", ("layer", "rms")),
        OneOf("depth", tuple(range(1, DEEPEST + 1))),
        *per_layer("mixer", tuple(MIXERS)),
        *per_layer("ratio", (1, 2, 4)),
    ),
    decode=decode,
)
