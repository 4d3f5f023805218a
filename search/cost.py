"""What an architecture costs, counted from its spec; weights are not made.

The sum of what its parts cost: `blocks/cost.py` says what is counted. Next: `layout.py`.
"""

from __future__ import annotations

from .blocks import Cost
from .blocks.cost import linear
from .layout import LayerLayout, StageLayout, tokens_merged
from .model import checked
from .spec import ArchSpec


def cost_of(spec: ArchSpec) -> Cost:
    """Of one input. Raises SpecError for a spec that cannot be built."""
    layout = checked(spec)
    width = layout.stages[0].site.width
    total = layout.stem.cost(layout.stem_config, width) + layout.norm.cost()
    for stage in layout.stages:
        total += merge_cost(stage)
        for layer in stage.layers:
            total += around_cost(layer)
            for part in layer.blocks:
                total += part.cost()
    site = layout.norm.site
    return total + layout.head.cost(layout.head_config, site.width, site.tokens, layout.stem_config)


def merge_cost(stage: StageLayout) -> Cost:
    """Of what stands before the first layer of a stage, if anything does."""
    if stage.before is None:
        return Cost()
    return linear(stage.before.width * tokens_merged(stage), stage.site.width, stage.site.tokens)


def around_cost(layer: LayerLayout) -> Cost:
    """Of what a layer has around its blocks: norms and scales."""
    total = Cost(params=sum(p.site.width for p in layer.blocks) if layer.scale else 0)
    for norm in layer.norms:
        total += norm.cost()
    return total
