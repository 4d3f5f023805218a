"""A fact about masks that only the call knows: each query sees some key.

Shapes: L queries, S keys; a mask is [..., L or 1, S], added to the scores.
It must not know how attention is rewritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from ..operators.mask_plan import LARGEST
from .subgraph import fold_constants, picker


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
