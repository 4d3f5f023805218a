"""Operators of our own, registered with torch when this package is imported.

    formwright::attention    masked attention that skips what the mask hides      attention.py
    formwright::mask_plan    which keys each query sees, as intervals             mask_plan.py

They run on the CPU. They must not know graphs or passes.
"""

import torch

from .attention import attention
from .mask_plan import mask_plan

ATTENTION = torch.ops.formwright.attention.default
MASK_PLAN = torch.ops.formwright.mask_plan.default

__all__ = ["ATTENTION", "MASK_PLAN", "attention", "mask_plan"]
