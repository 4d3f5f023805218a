"""A short convolution over the tokens before, channel by channel: what state-space models and gated
convolutions put in front of their state.

It must not know what reads it. Next: `recurrence.py`.

Shapes: B batch, T tokens, E channels, S size.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from .cost import Cost, depthwise


class CausalConv(nn.Conv1d):
    """[B, T, E] -> [B, T, E]: each token sees itself and `size - 1` before it; zeros stand before
    the first, and in the place of padding."""

    def __init__(self, channels: int, size: int, bias: bool = True) -> None:
        super().__init__(channels, channels, size, groups=channels, padding=size - 1, bias=bias)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        if real is not None:
            x = x.masked_fill(~real[..., None], 0)
        return super().forward(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)

    def begin(self, batch: int) -> Tensor:
        """The tokens before the first, [B, S - 1, E]."""
        return self.weight.new_zeros(batch, self.kernel_size[0] - 1, self.in_channels)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The next token, [B, E]."""
        seen = torch.cat([state, x.unsqueeze(1)], 1)  # [B, S, E]
        y = (seen * self.weight[:, 0].t()).sum(1)
        return y if self.bias is None else y + self.bias, seen[:, 1:]


def causal_conv_cost(channels: int, size: int, tokens: int, *, bias: bool = True) -> Cost:
    """Of `CausalConv`; it computes what stands behind the last token too."""
    params = depthwise(channels, size, 0, bias=bias)
    work = depthwise(channels, size, tokens + size - 1)
    return params + replace(work, params=0, state=(size - 1) * channels)
