"""LayerNorm Scaling: what a norm gives, divided by the square root of how deep its layer is.

"The Curse of Depth in Large Language Models" (Sun et al., 2025): layer l, counted from 1, gets
norm(x) / sqrt(l), which bounds how the variance of the main branch grows. Nothing more is trained.
Do not combine it with initial weights that shrink with depth.

Next: `prepbn.py`.
"""

from __future__ import annotations

from ..blocks.block import Site
from .plain import block

SOURCE = "Sun et al., 2025"


def factor(site: Site) -> float:
    """1 / sqrt(l), l from 1.

    >>> [round(factor(Site(8, (4,), layer=at, layers=9)), 4) for at in (0, 1, 3, 8)]
    [1.0, 0.7071, 0.5, 0.3333]
    """
    return float((site.layer + 1) ** -0.5)


LAYER = block("scaled_layer", "layer", SOURCE, factor)
RMS = block("scaled_rms", "rms", SOURCE, factor)
