"""Numbers and norms inside of attention. It must not know of which. Next: `norm_attention.py`.

Shapes: [..., D] in and out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def never(x: Tensor) -> float:
    """A score so low that its weight is 0, and finite: a row that sees nothing stays a number."""
    return torch.finfo(x.dtype).min / 2


def simple_rms_norm(y: Tensor) -> Tensor:
    """y / (|y| / sqrt(D) + 1e-6), the SRMSNorm of "TransNormerLLM" (Qin et al., 2023)."""
    size: Tensor = torch.linalg.vector_norm(y, dim=-1, keepdim=True) / math.sqrt(y.shape[-1])
    return y / (size + 1e-6)
