"""The same architecture in one spelling: what trains alike, number for number, becomes equal text.

Two specs are merged where a map of the weights makes one the other, in every forward and backward
pass, from the start: settings that change nothing here, blocks that add nothing, the same steps cut
into layers otherwise, branches that commute. Computing the same class of functions is not enough (a
free RMSNorm model is another one than a Pre-LN one), and a setting that only changes how fast the
same is computed stays, since searches measure that.

It knows our blocks by name, and leaves others as they are. It must not know torch. Next: `spec.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import cast

from .spec import ArchSpec, BlockSpec, LayerSpec, StageSpec

CHANNEL = ("gated_mlp", "low_rank_mlp", "mlp")
OF_DEPTH = ("linear_attention", "scaled_layer", "scaled_rms")
STILL = frozenset(  # the same at any depth
    [
        "aaren",
        "attention",
        "conv",
        "crms",
        "diag_attention",
        "gated_conv",
        "gated_mlp",
        "identity",
        "layer",
        "low_rank_mlp",
        "mamba2",
        "manhattan",
        "mlp",
        "none",
        "norm_attention",
        "phi_mamba",
        "pool",
        "prepbn",
        "random",
        "retention",
        "rms",
        "simple_attention",
    ]
)


@dataclass(frozen=True)
class Here:
    """Where a block stands: on which grid as it reads tokens, and in which layer."""

    grid: tuple[int, ...]
    width: int
    causal: bool
    layer: int

    @property
    def tokens(self) -> int:
        return math.prod(self.grid)


def canonical(spec: ArchSpec) -> ArchSpec:
    """The architecture that stands for all that train as `spec` does."""
    grid, causal = _laid(spec.stem)
    stages: list[StageSpec] = []
    at = 0
    for stage in spec.stages:
        grid = tuple(size // stage.merge for size in grid)
        layers = []
        for layer in stage.layers:
            layers.append(_layer(layer, Here(grid, stage.width, causal, at)) if grid else layer)
            at += 1
        if stages and stage.merge == 1 and stage.width == stages[-1].width:
            before = stages.pop()
            layers = [*before.layers, *layers]
            stage = before
        stages.append(replace(stage, layers=tuple(layers)))
    made = replace(spec, stages=tuple(stages))
    if not all(name in STILL for name in _names(made)):
        return made  # what depends on its layer's number leaves layers as they are counted
    paired = (replace(stage, layers=tuple(_paired(stage.layers))) for stage in stages)
    return replace(made, stages=tuple(paired))


def _laid(stem: BlockSpec) -> tuple[tuple[int, ...], bool]:
    """How the tokens of a stem lie, a row where they are causal; nothing if it is not ours."""
    sizes = dict(stem.settings)
    try:
        if stem.name == "image":
            patch = cast(int, sizes["patch"])
            return (cast(int, sizes["height"]) // patch, cast(int, sizes["width"]) // patch), False
        if stem.name == "tokens":
            return (cast(int, sizes["length"]),), bool(sizes["causal"])
        if stem.name == "series":
            length, patch = cast(int, sizes["length"]), cast(int, sizes["patch"])
            return (length // patch,), bool(sizes["causal"])
    except (KeyError, TypeError, ZeroDivisionError):
        pass  # `build` will say what is wrong with it
    return (), False


def _names(spec: ArchSpec) -> Iterator[str]:
    yield spec.norm.name
    for layer in spec.layers:
        yield layer.norm.name
        yield from (block.name for block in (layer.mixer, layer.channel) if block is not None)


# --- blocks ---------------------------------------------------------------------------------------


def _attention(block: BlockSpec, here: Here) -> BlockSpec:
    """A span beyond the farthest token sees no more. A span of one sees the token itself, with a
    weight of one: positions do not matter, nor, where each head has keys of its own, heads."""
    settings = dict(block.settings)
    settings["span"] = min(cast(int, settings["span"]), max(here.grid))
    if settings["span"] == 1:
        settings["positions"] = "none"
        if settings["heads"] == settings["kv_heads"]:
            inner = cast(int, settings["heads"]) * cast(int, settings["head_width"])
            settings |= {"heads": 1, "kv_heads": 1, "head_width": inner}
    return BlockSpec.of(block.name, **settings)


def _diag_attention(block: BlockSpec, here: Here) -> BlockSpec:
    """One chunk is attention, and so are chunks of one token."""
    settings = dict(block.settings)
    chunk, heads = cast(int, settings["chunk"]), settings["heads"]
    if 1 < chunk < here.tokens:
        return block
    span = 1 if chunk == 1 else max(here.grid)
    return _attention(
        BlockSpec.of(
            "attention",
            heads=heads,
            kv_heads=heads,
            head_width=here.width // cast(int, heads),
            positions="none",
            span=span,
        ),
        here,
    )


def _chunked(block: BlockSpec, here: Here) -> BlockSpec:
    """A chunk beyond the last token is one of all tokens."""
    chunk = min(cast(int, dict(block.settings)["chunk"]), here.tokens)
    return BlockSpec.of(block.name, **{**dict(block.settings), "chunk": chunk})


def _norm_attention(block: BlockSpec, here: Here) -> BlockSpec:
    """It has chunks where it is causal."""
    if here.causal:
        return _chunked(block, here)
    return BlockSpec.of(block.name, **{**dict(block.settings), "chunk": 1})


def _pool(block: BlockSpec, here: Here) -> BlockSpec | None:
    """Of itself alone it is nothing; windows beyond the border hold no more tokens."""
    size = cast(int, dict(block.settings)["size"])
    size = min(size, here.tokens if here.causal else 2 * max(here.grid) - 1)
    return None if size == 1 else BlockSpec.of(block.name, size=size)


def _manhattan(block: BlockSpec, here: Here) -> BlockSpec:
    """On a single row or column there is nothing to decompose."""
    if min(here.grid) > 1:
        return block
    return BlockSpec.of(block.name, **{**dict(block.settings), "decomposed": False})


BLOCKS: dict[str, Callable[[BlockSpec, Here], BlockSpec | None]] = {
    "attention": _attention,
    "diag_attention": _diag_attention,
    "linear_attention": _chunked,
    "mamba2": _chunked,
    "manhattan": _manhattan,
    "norm_attention": _norm_attention,
    "phi_mamba": _chunked,
    "pool": _pool,
    "retention": _chunked,
}


def spelled(block: BlockSpec, here: Here) -> BlockSpec | None:
    """The block that stands for all that train as this one does there; None if it adds nothing."""
    rule = BLOCKS.get(block.name)
    try:
        return block if rule is None else rule(block, here)
    except (KeyError, TypeError, ValueError):
        return block  # `build` will say what is wrong with it


# --- layers ---------------------------------------------------------------------------------------


def _layer(layer: LayerSpec, here: Here) -> LayerSpec:
    """Each block by its rule, and the form: one branch is not parallel, branches commute, without a
    norm it does not matter where it would stand, and the first layer divides by the root of 1."""
    norm, residual = layer.norm, layer.residual
    if here.layer == 0 and norm.name in ("scaled_layer", "scaled_rms"):
        norm = BlockSpec(norm.name.removeprefix("scaled_"))
    if residual == "post" and norm == BlockSpec("none"):
        residual = "pre"
    blocks = [block for block in (layer.mixer, layer.channel) if block is not None]
    made = [spelled(block, here) for block in blocks]
    if residual == "post":  # what adds nothing is normalised all the same
        kept = [new if new is not None else old for new, old in zip(made, blocks, strict=True)]
    else:
        kept = [block for block in made if block is not None]
    if residual == "parallel":
        kept.sort(key=lambda block: (block.name in CHANNEL, repr(block)))
        residual = "parallel" if len(kept) == 2 else "pre"
    if not kept:
        return LayerSpec(None, None, BlockSpec("none"))
    if len(kept) == 1:
        return replace(_single(kept[0], layer), norm=norm, residual=residual)
    return replace(layer, mixer=kept[0], channel=kept[1], norm=norm, residual=residual)


def _single(block: BlockSpec, like: LayerSpec) -> LayerSpec:
    """A layer of one block, in the place where people look for it."""
    if block.name in CHANNEL:
        return replace(like, mixer=None, channel=block)
    return replace(like, mixer=block, channel=None)


def _paired(layers: tuple[LayerSpec, ...]) -> list[LayerSpec]:
    """The same steps, a mixer and the channel mixer behind it to a layer, and what is empty left
    out."""
    made: list[LayerSpec] = []
    for step in _steps(layers):
        last = made[-1] if made else None
        if last is not None and _pairs(last, step):
            made[-1] = replace(last, channel=step.channel)
        else:
            made.append(step)
    return made


def _steps(layers: tuple[LayerSpec, ...]) -> Iterator[LayerSpec]:
    """One block each; branches that are parallel stay together."""
    for layer in layers:
        if layer.residual == "parallel":
            yield layer
        else:
            yield from (_single(b, layer) for b in (layer.mixer, layer.channel) if b is not None)


def _pairs(last: LayerSpec, step: LayerSpec) -> bool:
    alike = replace(last, mixer=None) == replace(step, channel=None)
    return alike and last.residual != "parallel" and last.mixer is not None and step.mixer is None
