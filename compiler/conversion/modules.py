"""The norms that a converted model has in place of `nn.LayerNorm`.

Shapes: D is the width of the main branch before the conversion.
They must not know how a model is converted.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight + bias; x [..., D] in and out.

    `torch.nn.RMSNorm` with the bias that a LayerNorm may have.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self, width: int, eps: float, weight: nn.Parameter | None, bias: nn.Parameter | None
    ) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.register_parameter("weight", weight)
        self.register_parameter("bias", bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.rms_norm(x, [self.width], self.weight, self.eps)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{self.width}, eps={self.eps}, bias={self.bias is not None}"


class CRMSNorm(nn.Module):
    """y / sqrt((sum(y^2) + sum(y)^2) / D + eps); y [..., D - 1], the last of D channels without a
    mean being -sum(y). With `whole`, that channel is put back and weight and bias are applied:
    [..., D] out. Source: "Pre-RMSNorm and Pre-CRMSNorm Transformers" (arXiv 2305.14858)."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        width: int,
        eps: float,
        weight: nn.Parameter | None = None,
        bias: nn.Parameter | None = None,
        *,
        whole: bool = False,
    ) -> None:
        super().__init__()
        self.width, self.eps, self.whole = width, eps, whole
        self.register_parameter("weight", weight)
        self.register_parameter("bias", bias)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        wide = y.float() if y.dtype in (torch.float16, torch.bfloat16) else y
        last = wide.sum(-1, keepdim=True)
        squares = (wide * wide).sum(-1, keepdim=True) + last * last
        root = torch.rsqrt(squares / self.width + self.eps)
        if not self.whole:
            return (wide * root).to(y.dtype)
        x = (torch.cat([wide, -last], -1) * root).to(y.dtype)
        x = x if self.weight is None else x * self.weight
        return x if self.bias is None else x + self.bias

    def extra_repr(self) -> str:
        return f"{self.width}, eps={self.eps}, whole={self.whole}"
