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
    made = replace(spec, stages=tuple(stages), norm=_norm(spec.norm, 0))
    if not all(name in STILL for name in parts_of(made)):
        return made  # what depends on its layer's number leaves layers as they are counted
    paired = (replace(stage, layers=tuple(_paired(stage.layers))) for stage in stages)
    return replace(made, stages=tuple(paired))


def _laid(stem: BlockSpec) -> tuple[tuple[int, ...], bool]:
    """How the tokens of a stem lie, and whether they are causal; nothing if it is not one of ours,
    or none that can be built."""
    sizes = dict(stem.settings)
    wanted = {"image": ("height", "width", "patch"), "series": ("length", "patch")}
    numbers = [sizes.get(name) for name in wanted.get(stem.name, ("length",))]
    if stem.name not in (*wanted, "tokens") or not all(map(_positive, numbers)):
        return (), False
    *sides, patch = cast(list[int], numbers if stem.name in wanted else [*numbers, 1])
    causal = sizes.get("causal", False) is True
    return (tuple(side // patch for side in sides), causal) if min(sides) >= patch else ((), False)


def _positive(value: object) -> bool:
    return type(value) is int and value > 0


def parts_of(spec: ArchSpec) -> Iterator[str]:
    """The names of its norms and blocks."""
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
    """One chunk is attention. In chunks of one token heads do not matter."""
    settings = dict(block.settings)
    chunk, heads = cast(int, settings["chunk"]), cast(int, settings["heads"])
    if chunk == 1 < here.tokens:
        return BlockSpec.of(block.name, heads=1, chunk=1)
    if chunk < here.tokens:
        return block
    settings = {"heads": heads, "kv_heads": heads, "head_width": here.width // heads}
    settings |= {"positions": "none", "span": max(here.grid)}
    return _attention(BlockSpec.of("attention", **settings), here)


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
    """The block that stands for all that train as this one does there, the cheapest of them; None
    if it adds nothing. What cannot be built is left for `build` to refuse."""
    rule = BLOCKS.get(block.name)
    return block if rule is None or not _fits(block, here) else rule(block, here)


SETTINGS = {
    "attention": {"heads", "kv_heads", "head_width", "positions", "span"},
    "diag_attention": {"heads", "chunk"},
    "linear_attention": {"heads", "chunk", "rotate"},
    "mamba2": {"expand", "head_width", "state", "conv", "chunk"},
    "manhattan": {"heads", "reach", "decomposed", "inside"},
    "norm_attention": {"heads", "chunk"},
    "phi_mamba": {"heads", "state", "conv", "chunk"},
    "pool": {"size"},
    "retention": {"heads", "expand", "chunk"},
}
NO_NUMBERS = {"positions", "rotate", "decomposed", "inside"}


def _fits(block: BlockSpec, here: Here) -> bool:
    """Whether the settings are those of the block, and fit the site as far as a rule would hide."""
    settings = dict(block.settings)
    numbers = (value for name, value in settings.items() if name not in NO_NUMBERS)
    if set(settings) != SETTINGS[block.name] or not all(map(_positive, numbers)):
        return False
    if block.name == "pool":
        return here.causal or cast(int, settings["size"]) % 2 == 1
    if block.name == "attention":
        rotary = settings["positions"] == "rotary" and cast(int, settings["head_width"]) % 2
        shared = cast(int, settings["heads"]) % cast(int, settings["kv_heads"])
        return settings["positions"] in ("none", "rotary", "alibi") and not rotary and not shared
    if block.name == "manhattan":
        return len(here.grid) == 2 and settings["decomposed"] in (True, False)
    return block.name != "diag_attention" or here.width % cast(int, settings["heads"]) == 0


# --- layers ---------------------------------------------------------------------------------------


def _layer(layer: LayerSpec, here: Here) -> LayerSpec:
    """Each block by its rule, and the form: one branch is not parallel, branches commute, without a
    norm it does not matter where it would stand, and the first layer divides by the root of 1."""
    norm, residual = _norm(layer.norm, here.layer), layer.residual
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
        known = norm.name in STILL or norm.name in OF_DEPTH
        return LayerSpec(None, None, BlockSpec("none") if known else norm)
    if len(kept) == 1:
        return replace(_single(kept[0], layer), norm=norm, residual=residual)
    return replace(layer, mixer=kept[0], channel=kept[1], norm=norm, residual=residual)


def _norm(norm: BlockSpec, layer: int) -> BlockSpec:
    """The first layer is divided by the root of 1, and so is what stands behind the last."""
    if layer == 0 and norm in (BlockSpec("scaled_layer"), BlockSpec("scaled_rms")):
        return BlockSpec(norm.name.removeprefix("scaled_"))
    return norm


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
