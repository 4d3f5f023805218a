"""What an architecture costs, counted from its spec; weights are not made.

The sum of what its parts cost: `blocks/cost.py` says what is counted. Next: `layout.py`.
"""

from __future__ import annotations

from dataclasses import replace

from .blocks import Cost
from .blocks.cost import linear
from .layout import LayerLayout, StageLayout, built, lay_out, tokens_merged
from .spec import ArchSpec


def cost_of(spec: ArchSpec) -> Cost:
    """Of one input. Raises SpecError for a spec that cannot be built."""
    layout = built(lay_out(spec))
    width = layout.stages[0].site.width
    total = layout.stem.cost(layout.stem_config, width) + layout.norm.cost()
    for stage in layout.stages:
        total += merge_cost(stage)
        for layer in stage.layers:
            total += layer_cost(layer)
    site = layout.norm.site
    head = layout.head.cost(layout.head_config, site.width, site.tokens, layout.stem_config)
    found = total + head
    return found if layout.causal else replace(found, state=0)


def merge_cost(stage: StageLayout) -> Cost:
    """Of what stands before the first layer of a stage, if anything does."""
    if stage.before is None:
        return Cost()
    return linear(stage.before.width * tokens_merged(stage), stage.site.width, stage.site.tokens)


def layer_cost(layer: LayerLayout) -> Cost:
    """Of its blocks, norms and scales."""
    norms = layer.norms[:1] if layer.residual == "parallel" else layer.norms
    total = Cost()
    for part in (*layer.blocks, *norms):
        total += part.cost()
    scales = sum(part.site.width for part in layer.blocks) if layer.scale else 0
    return total + Cost(params=scales)
