"""Attention without softmax whose heads fade at fixed rates: what its rows have in common.

A row makes queries, keys, values and a gate of tokens (`_parts`), and an output of what was read
(`_out`); here is how they run, all at once and token by token. It must not know which row it is.
Next: `linear_attention.py`, `retention.py`.

Shapes: B batch, T tokens, D width, H heads, P value width, N key width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .block import State
from .recurrence import recur_chunked, recur_step, wide


class Fading(nn.Module):
    """[B, T, D] -> [B, T, D]. `log_decays` has a number for each head, `kept` is (H, P, N)."""

    none: Tensor

    def __init__(self, log_decays: list[float], kept: tuple[int, int, int], chunk: int) -> None:
        super().__init__()
        self.log_decays, self.kept, self.chunk = log_decays, kept, chunk
        self.register_buffer("none", torch.empty(0), persistent=False)  # knows device and dtype

    def _parts(self, x: Tensor, at: Tensor) -> tuple[Tensor, ...]:
        """q and k [B, T, H, N], v [B, T, H, P], gate [B, T, ..] of tokens at `at` [T]."""
        raise NotImplementedError

    def _out(self, y: Tensor, gate: Tensor) -> Tensor:
        """What was read, y [.., H, P], as an output [.., D]."""
        raise NotImplementedError

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        q, k, v, gate = self._parts(x, torch.arange(x.shape[1], device=x.device))
        log_a = wide(x).new_tensor(self.log_decays).expand(*x.shape[:2], -1)  # [B, T, H]
        y, _ = recur_chunked(v, log_a, k, q, self.chunk, real=real)
        return self._out(y, gate)

    def begin(self, batch: int) -> State:
        """h [B, H, P, N], and how many tokens there were."""
        h = wide(self.none).new_zeros(batch, *self.kept)
        return h, torch.zeros(1, dtype=torch.long, device=h.device)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h, at = state
        q, k, v, gate = (part.squeeze(1) for part in self._parts(x.unsqueeze(1), at))
        log_a = wide(x).new_tensor(self.log_decays).expand(len(x), -1)
        y, h = recur_step(v, log_a, k, q, h)
        return self._out(y, gate), (h, at + 1)
