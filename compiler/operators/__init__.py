"""Operators of our own, registered with torch when this package is imported.

    formwright::attention    masked attention that skips what the mask hides      attention.py
    formwright::materialize  a value kept in memory of its own                 materialize.py
    formwright::mask_plan    which keys each query sees, as intervals             mask_plan.py
    formwright::token_rows   the real tokens of a padded batch                    token_rows.py
    formwright::varlen_attention    attention of packed sequences          varlen_attention.py

They run on the CPU. They must not know graphs or passes.
"""

import torch

from .attention import attention
from .mask_plan import mask_plan
from .materialize import materialize
from .token_rows import token_rows
from .varlen_attention import varlen_attention

ATTENTION = torch.ops.formwright.attention.default
MATERIALIZE = torch.ops.formwright.materialize.default
MASK_PLAN = torch.ops.formwright.mask_plan.default
TOKEN_ROWS = torch.ops.formwright.token_rows.default
VARLEN_ATTENTION = torch.ops.formwright.varlen_attention.default

__all__ = [
    "ATTENTION",
    "MASK_PLAN",
    "MATERIALIZE",
    "TOKEN_ROWS",
    "VARLEN_ATTENTION",
    "attention",
    "mask_plan",
    "materialize",
    "token_rows",
    "varlen_attention",
]
