"""An architecture for people: its letters, a table of its parts with what each costs, a drawing.

It must not know how architectures are found. Next: `layout.py`, `drawing.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from .blocks import Cost
from .cost import around_cost, merge_cost
from .layout import Layout, Part, lay_out
from .model import checked
from .spec import ArchSpec


@dataclass(frozen=True)
class Row:
    """A part of an architecture: the path to it, what it is, how its tokens lie, what it costs."""

    path: str
    what: str
    settings: str
    width: int
    grid: tuple[int, ...]
    cost: Cost


def pattern(spec: ArchSpec) -> str:
    """A letter for each block, layer after layer; branches of a parallel layer in parentheses,
    stages apart. Raises SpecError for a spec that cannot be built.

    >>> from .spec import BlockSpec, LayerSpec
    >>> pool, mlp = BlockSpec.of("pool", size=3), BlockSpec.of("mlp", hidden=8, activation="gelu")
    >>> layers = LayerSpec(pool, mlp, "rms"), LayerSpec(pool, mlp, "rms", "parallel")
    >>> pattern(ArchSpec.of_images((1, 8, 8), 10, 2, 32, layers))
    'p-(p-)'
    """
    words = []
    for stage in lay_out(spec).stages:
        letters = ("".join(p.block.symbol for p in layer.blocks) for layer in stage.layers)
        marks = (layer.residual == "parallel" for layer in stage.layers)
        words.append("".join(f"({w})" if m else w for w, m in zip(letters, marks, strict=True)))
    return " ".join(words)


def rows(spec: ArchSpec) -> list[Row]:
    """Every part in order; their costs add up to `cost_of(spec)`. Raises SpecError for a spec that
    cannot be built."""
    layout = checked(spec)
    return [*_stem(layout), *_layers(layout), *_end(layout)]


def _stem(layout: Layout) -> Iterator[Row]:
    site, config = layout.stages[0].site, layout.stem_config
    cost = layout.stem.cost(config, site.width)
    yield Row("stem", layout.stem.name, _settings(config), site.width, site.grid, cost)


def _layers(layout: Layout) -> Iterator[Row]:
    several = len(layout.stages) > 1
    for s, stage in enumerate(layout.stages):
        of = f"stages[{s}]" if several else ""
        if stage.before is not None:
            each = " x ".join([str(stage.merge)] * len(stage.site.grid))
            what = f"{each} to one" if stage.merge > 1 else "another width"
            site = stage.site
            yield Row(of, "merge", what, site.width, site.grid, merge_cost(stage))
        for layer in stage.layers:
            for part in layer.blocks:
                yield _row(part, part.cost())
            if layer.norms:
                norm, count = layer.norms[0], len(layer.norms)
                form = f"{layer.residual}, scale {layer.scale:g}" if layer.scale else layer.residual
                name = f"{count} x {norm.block.name}" if count > 1 else norm.block.name
                cost = around_cost(layer)
                yield Row(norm.field, name, form, norm.site.width, norm.site.grid, cost)


def _end(layout: Layout) -> Iterator[Row]:
    yield _row(layout.norm, layout.norm.cost())
    site, config = layout.norm.site, layout.head_config
    cost = layout.head.cost(config, site.width, site.tokens, layout.stem_config)
    yield Row("head", layout.head.name, _settings(config), site.width, site.grid, cost)


def _row(part: Part, cost: Cost) -> Row:
    name, site = part.block.name, part.site
    return Row(part.field, name, _settings(part.config), site.width, site.grid, cost)


def _settings(config: object) -> str:
    named = ((f.name, getattr(config, f.name)) for f in fields(config))  # type: ignore[arg-type]
    return ", ".join(f"{name} {value}" for name, value in named)
