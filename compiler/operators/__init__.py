"""Operators of our own, registered with torch when this package is imported.

    formwright::attention    masked attention that skips what the mask hides      attention.py
    formwright::mask_plan    which keys each query sees, as intervals             mask_plan.py

They run on the CPU. They must not know graphs or passes.
"""

from .attention import attention
from .mask_plan import mask_plan

__all__ = ["attention", "mask_plan"]
