"""The MatFormer space: one Transformer, and how wide each of its channel mixers is.

"MatFormer" (Devvrit et al., 2023): widths are 1/8, 1/4, 1/2 and all of the whole, each layer for
itself, so that every architecture is a sub-model of `whole(signature)`: trained alone, or run on
the weights of that one (`../supernet/`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ..spec import ArchSpec, BlockSpec, LayerSpec, Scalar, Signature, StageSpec
from ..spelling import canonical
from .fits import patch_fits
from .metaformer import attention
from .space import OneOf, Space

LAYERS, WIDTH, HIDDEN = 4, 32, 128
HIDDENS = tuple(HIDDEN // part for part in (8, 4, 2, 1))


def decode(genes: Mapping[str, Scalar], signature: Signature) -> ArchSpec:
    """The architecture that the genes mean for this signature."""
    layers = tuple(
        LayerSpec(
            attention(WIDTH, 4),
            BlockSpec.of("mlp", hidden=genes[f"hidden{at}"], activation="gelu"),
            BlockSpec("rms"),
        )
        for at in range(LAYERS)
    )
    return ArchSpec.of(signature, (StageSpec(WIDTH, layers),), patch=cast(int, genes["patch"]))


def whole(signature: Signature, patch: int = 2) -> ArchSpec:
    """The network that holds all of them with this patch, as a search spells them."""
    genes = {"patch": patch, **{f"hidden{at}": HIDDEN for at in range(LAYERS)}}
    return canonical(decode(genes, signature))


SPACE = Space(
    name="matformer",
    genes=(
        OneOf("patch", (1, 2), fits=patch_fits),
        *(OneOf(f"hidden{at}", HIDDENS) for at in range(LAYERS)),
    ),
    decode=decode,
)
