"""`formwright::token_rows`: which rows of a padded batch are real tokens.

Shapes: B batch, L padded length, T real tokens (known in the call only).

    keep [B, L] -> rows [T]: b * L + l      sequence [T]: b      position [T]: l      starts [B + 1]

Rows are in order, so the tokens of sequence b are rows starts[b] to starts[b + 1]. It must not know
what is computed with them. Next: `varlen_attention.py`.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad


@torch.library.custom_op("formwright::token_rows", mutates_args=())
def token_rows(
    keep: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """rows, sequence, position and starts (int64) of the True cells of `keep` [B, L]."""
    rows = keep.reshape(-1).nonzero().squeeze(1)
    sequence, position = rows // keep.shape[1], rows % keep.shape[1]
    starts = pad(keep.sum(1).cumsum(0), (1, 0))
    return rows, sequence, position, starts


@token_rows.register_fake
def _(keep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens = torch.library.get_ctx().new_dynamic_size(min=0)
    rows, sequence, position = (keep.new_empty(tokens, dtype=torch.int64) for _ in range(3))
    return rows, sequence, position, keep.new_empty(keep.shape[0] + 1, dtype=torch.int64)
