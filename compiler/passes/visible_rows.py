"""A fact about masks that only the call knows: each query sees some key.

Shapes: L queries, S keys; a mask is [..., L or 1, S], added to the scores.
It must not know how attention is rewritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from ..facts import Facts
from ..graph import aten
from ..operators.mask_plan import LARGEST
from .subgraph import ancestors, fold_constants, picker, runs_ahead

# A mask that is computed from activations (a bias from queries and keys, say) is not looked at: the
# prologue would have to run the model.
HEAVY = (
    aten.matmul.default,
    aten.mm.default,
    aten.bmm.default,
    aten.linear.default,
    aten.addmm.default,
    aten.baddbmm.default,
    aten.einsum.default,
    aten.layer_norm.default,
    aten.softmax.int,
    aten.scaled_dot_product_attention.default,
)


class VisibleRows:
    """Holds in the calls in which no row of any of the masks hides all keys."""

    name = "rows visible"

    def __init__(self, masks: fx.GraphModule, positions: Sequence[int]) -> None:
        with torch.no_grad():
            fold_constants(masks)
        self._masks = masks
        self._pick = picker(positions)

    def derive(self, inputs: Sequence[Any]) -> tuple[torch.Tensor, ...] | None:
        """No values: `()` where the fact holds, None where it does not."""
        with torch.no_grad():
            masks = self._masks.forward(*self._pick(inputs))
            return () if all(map(every_row_sees_some_key, masks)) else None


def every_row_sees_some_key(mask: torch.Tensor) -> bool:
    """Whether each row [S] of a mask [..., S] has its largest value near zero (within LARGEST), and
    none is NaN."""
    if mask.numel() == 0:
        return False
    if mask.dtype == torch.bool:
        return bool(mask.any(-1).all())
    return mask.amax(-1).abs().max().item() <= LARGEST  # NaN wins every max and compares false


def can_be_derived(mask: fx.Node, facts: Facts) -> bool:
    """Whether the prologue can compute this mask from the inputs, cheaply."""
    behind = ancestors(mask)
    return (
        any(n.op == "placeholder" for n in behind)
        and runs_ahead(behind, facts)
        and not any(n.target in HEAVY for n in behind)
    )
