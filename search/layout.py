"""A spec with everything looked up: rows and configs of its blocks, and the site of each layer.

It says what is wrong with a spec, by path, without building anything. Next: `model.py` builds what
is laid out, `cost.py` counts it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from .blocks import BLOCKS, Block, Cost, Site
from .blocks.block import configured
from .ends import HEADS, STEMS, Head, Stem
from .errors import SpecError
from .norms import NORMS
from .registry import Registry
from .spec import ArchSpec, BlockSpec, LayerSpec, StageSpec


@dataclass(frozen=True)
class Part:
    """A block that was looked up, where it stands, and the path to it."""

    block: Block
    config: Any
    site: Site
    field: str

    def make(self) -> nn.Module:
        """Raises SpecError where the settings do not fit the site."""
        return self.block.module_at(self.config, self.site, self.field)

    def cost(self) -> Cost:
        """Nothing is kept in a model that does not go token by token."""
        found = self.block.cost_at(self.config, self.site)
        return found if self.site.causal else replace(found, state=0)


@dataclass(frozen=True)
class LayerLayout:
    """`blocks` in order (one or two), and their norms: one each, or one for both where parallel."""

    blocks: tuple[Part, ...]
    norms: tuple[Part, ...]
    residual: str
    scale: float


@dataclass(frozen=True)
class StageLayout:
    """`before` is the site that tokens come from, where they are merged or change their width."""

    site: Site
    before: Site | None
    merge: int
    layers: tuple[LayerLayout, ...]


@dataclass(frozen=True)
class Layout:
    """The whole architecture. Raises SpecError (`lay_out`) for what cannot be."""

    stem: Stem
    stem_config: Any
    stages: tuple[StageLayout, ...]
    norm: Part
    head: Head
    head_config: Any

    @property
    def causal(self) -> bool:
        return self.stages[0].site.causal


def lay_out(spec: ArchSpec) -> Layout:
    """Raises UnknownNameError for names that are not known, SpecError for settings that do not fit,
    with the path."""
    stem: Stem = STEMS.load(spec.stem.name, "stem.name")
    stem_config = configured(stem.name, stem.config, dict(spec.stem.settings), "stem")
    try:
        grid = stem.grid(stem_config)
    except ValueError as error:
        raise SpecError(str(error), "stem") from error
    site = Site(spec.stages[0].width, grid, stem.causal(stem_config), 0, len(spec.layers))
    stages, paths = [], spec.paths()
    for at, stage in enumerate(spec.stages):
        stages.append(_stage(stage, site, paths, f"stages[{at}]", first=not at))
        site = replace(stages[-1].site, layer=site.layer + len(stage.layers))
    head: Head = HEADS.load(spec.head.name, "head.name")
    head_config = configured(head.name, head.config, dict(spec.head.settings), "head")
    # the last norm belongs to no layer: nothing of it depends on depth
    norm = _part(NORMS, spec.norm, replace(site, layer=0), "norm")
    return Layout(stem, stem_config, tuple(stages), norm, head, head_config)


def _stage(
    stage: StageSpec, before: Site, paths: Iterator[str], field: str, *, first: bool
) -> StageLayout:
    if stage.merge > 1 and before.causal:
        raise SpecError("merged tokens see later ones; the stem is causal", f"{field}.merge")
    if any(size % stage.merge for size in before.grid):
        sizes = " x ".join(map(str, before.grid))
        raise SpecError(f"{stage.merge} does not divide a grid of {sizes}", f"{field}.merge")
    grid = tuple(size // stage.merge for size in before.grid)
    site = replace(before, width=stage.width, grid=grid)
    changes = not first and (stage.merge > 1 or stage.width != before.width)
    layers = [
        _layer(layer, replace(site, layer=site.layer + at), next(paths))
        for at, layer in enumerate(stage.layers)
    ]
    return StageLayout(site, before if changes else None, stage.merge, tuple(layers))


def _layer(layer: LayerSpec, site: Site, field: str) -> LayerLayout:
    norm = _part(NORMS, layer.norm, site, f"{field}.norm")
    given = {"mixer": layer.mixer, "channel": layer.channel}
    blocks = [
        _part(BLOCKS, block, site, f"{field}.{place}")
        for place, block in given.items()
        if block is not None
    ]
    count = min(len(blocks), 1) if layer.residual == "parallel" else len(blocks)
    return LayerLayout(tuple(blocks), (norm,) * count, layer.residual, layer.scale)


def _part(table: Registry[Block], spec: BlockSpec, site: Site, field: str) -> Part:
    # the name of a norm is all there is of it in the first schema
    name = field if table is NORMS and not spec.settings else f"{field}.name"
    block = table.load(spec.name, name)
    return Part(block, block.configured(dict(spec.settings), field), site, field)


def tokens_merged(stage: StageLayout) -> int:
    """How many tokens become one."""
    return int(math.pow(stage.merge, len(stage.site.grid)))
