"""The hybrid space: state-space layers, a few of attention, channel mixers between them.

"An Empirical Study of Mamba-based Language Models" (Waleffe et al., 2024): each layer is one block.
Shares say how many of each there are; where attention stands is a knob, since searched hybrids
place it unevenly; a share of nothing turns off the knobs of what is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from ..spec import ArchSpec, BlockSpec, LayerSpec, Scalar, Signature, StageSpec
from .fits import patch_fits
from .metaformer import WHOLE, attention
from .placement import ATTENTION, CHANNEL, even
from .space import OneOf, Rule, Space

SHARES = (0.0, 0.125, 0.25, 0.5)
SOME = SHARES[1:]


def decode(genes: Mapping[str, Scalar], signature: Signature) -> ArchSpec:
    """The architecture that the genes mean for this signature."""
    pattern = placed(genes)
    width = cast(int, genes["width"])
    norm = BlockSpec(str(genes["norm"]))
    blocks = {
        ATTENTION: attention(
            width,
            cast(int, genes["heads"]),
            kv_heads=genes["kv_heads"],
            positions=genes["positions"],
            span=genes["span"],
        ),
        CHANNEL: BlockSpec.of(
            "gated_mlp", hidden=width * cast(int, genes["ratio"]), activation="silu"
        ),
    }
    state_space = BlockSpec.of(
        "mamba2",
        expand=genes["expand"],
        head_width=genes["head_width"],
        state=genes["state"],
        conv=4,
        chunk=16,
    )
    layers = []
    for letter in pattern:
        block = blocks.get(letter, state_space)
        mixer, channel = (None, block) if letter == CHANNEL else (block, None)
        layers.append(LayerSpec(mixer, channel, norm))
    stage = StageSpec(width, tuple(layers))
    return ArchSpec.of(signature, (stage,), patch=cast(int, genes["patch"]))


def placed(genes: Mapping[str, Scalar]) -> str:
    """The letters of its layers, attention moved to where the genes want it.

    >>> genes = {"depth": 8, "attention": 0.25, "channel": 0.5, "place": "even"}
    >>> placed(genes), placed({**genes, "place": "first"}), placed({**genes, "place": "last"})
    ('M-*-M*--', '**M--M--', 'M--M--**')
    """
    depth = cast(int, genes["depth"])
    pattern = even(depth, cast(float, genes["attention"]), cast(float, genes["channel"]))
    if genes["place"] == "even":
        return pattern
    attention = ATTENTION * pattern.count(ATTENTION)
    others = pattern.replace(ATTENTION, "")
    return attention + others if genes["place"] == "first" else others + attention


WITH_ATTENTION = {"attention": SOME}

SPACE = Space(
    name="hybrid_mamba",
    genes=(
        OneOf("patch", (1, 2), fits=patch_fits),
        OneOf("width", (16, 32, 64)),
        OneOf("norm", ("layer", "rms")),
        OneOf("depth", (4, 8, 12)),
        OneOf("attention", SHARES),
        OneOf("channel", SHARES),
        OneOf("place", ("even", "first", "last"), when=WITH_ATTENTION),
        OneOf("heads", (1, 2, 4), when=WITH_ATTENTION),
        OneOf("kv_heads", (1, 2, 4), when=WITH_ATTENTION),
        OneOf("positions", ("none", "rotary", "alibi"), when=WITH_ATTENTION),
        OneOf("span", (2, 4, WHOLE), when=WITH_ATTENTION),
        OneOf("ratio", (1, 2, 4), when={"channel": SOME}),
        OneOf("expand", (1, 2)),
        OneOf("head_width", (8, 16)),
        OneOf("state", (8, 16, 32)),
    ),
    decode=decode,
    rules=(
        Rule(
            ("heads", "kv_heads"),
            lambda heads, kv_heads: cast(int, heads) % cast(int, kv_heads) == 0,
            "heads of keys divide the heads",
        ),
    ),
)
