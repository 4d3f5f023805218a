"""Mamba-2: a state that decays and is written to by each token in turn, read by each token.

"Transformers are SSMs" (Dao and Gu, 2024). `ssd_naive` is the definition, `ssd_chunked` the same
numbers by matrix products, and `Mamba2` the layer around it. It is causal: the tokens of the grid
are read row by row, and each sees only those before it.

Shapes: B batch, T tokens, D width, E = expand * D, H heads, P = E / H head width, N state,
Q chunk, C chunks (Q * C >= T). `b` and `c` are shared by the heads (one group).
Next: `../model.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .block import Block, Site


def ssd_naive(
    x: Tensor, log_a: Tensor, b: Tensor, c: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The recurrence, one token after the other:

        h[t] = a[t] * h[t-1] + x[t] b[t]^T        y[t] = h[t] c[t]

    x [B,T,H,P], log_a [B,T,H], b and c [B,T,N]; h starts as `state` [B,H,P,N], or zeros. Returns
    y [B,T,H,P] and the last h.
    """
    h = _zeros(x, b) if state is None else state
    y = []
    for t in range(x.shape[1]):
        write = x[:, t, :, :, None] * b[:, t, None, None, :]  # [B, H, P, N]
        h = log_a[:, t, :, None, None].exp() * h + write
        y.append((h * c[:, t, None, None, :]).sum(-1))
    return torch.stack(y, 1), h


def ssd_chunked(
    x: Tensor, log_a: Tensor, b: Tensor, c: Tensor, chunk: int, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """As `ssd_naive`, in chunks of `chunk` tokens: inside a chunk it is attention with a mask of
    decays, and only the states between chunks are passed on in turn."""
    h = _zeros(x, b) if state is None else state
    tokens = x.shape[1]
    chunk = min(chunk, tokens)
    x, log_a, b, c = (_in_chunks(part, chunk) for part in (x, log_a, b, c))
    x, log_a = x.transpose(2, 3), log_a.transpose(2, 3)  # [B, C, H, Q, P], [B, C, H, Q]
    b, c = b.unsqueeze(2), c.unsqueeze(2)  # [B, C, 1, Q, N]

    sums = segment_sums(log_a)  # [B, C, H, Q, Q]
    since_start = log_a.cumsum(-1)  # [B, C, H, Q], the token's own decay included
    inside = (c @ b.transpose(-1, -2) * sums.exp()) @ x  # [B, C, H, Q, P]

    until_end = sums[..., -1, :].exp()  # [B, C, H, Q]
    written = (x * until_end[..., None]).transpose(-1, -2) @ b  # [B, C, H, P, N]
    decay = since_start[..., -1].exp()  # [B, C, H]
    before = []
    for at in range(x.shape[1]):
        before.append(h)
        h = decay[:, at, :, None, None] * h + written[:, at]
    carried = c @ torch.stack(before, 1).transpose(-1, -2)  # [B, C, H, Q, P]

    y = inside + since_start.exp()[..., None] * carried
    return y.transpose(2, 3).flatten(1, 2)[:, :tokens], h


def segment_sums(x: Tensor) -> Tensor:
    """[..., Q] -> [..., Q, Q]: at [i, j] the sum of x[j+1] .. x[i], and -inf above the diagonal.

    Summed where it is needed, never as a difference of two running sums: those grow with the
    sequence, and their difference would lose what a fast decay leaves.
    """
    size = x.shape[-1]
    lower = torch.ones(size, size, dtype=torch.bool, device=x.device).tril()
    terms = x[..., :, None].expand(*x.shape, size).masked_fill(~lower.tril(-1), 0)
    return terms.cumsum(-2).masked_fill(~lower, -torch.inf)


def _in_chunks(x: Tensor, chunk: int) -> Tensor:
    """[B, T, ...] -> [B, C, Q, ...]. The last chunk is filled up with zeros: tokens that write
    nothing and whose decay is 1, so that the last state stays right."""
    missing = -x.shape[1] % chunk
    if missing:
        x = torch.cat([x, x.new_zeros(x.shape[0], missing, *x.shape[2:])], 1)
    return x.reshape(x.shape[0], x.shape[1] // chunk, chunk, *x.shape[2:])


def _zeros(x: Tensor, b: Tensor) -> Tensor:
    """The state before any token: x [B,T,H,P], b [B,T,N] -> [B,H,P,N]."""
    return x.new_zeros(x.shape[0], *x.shape[2:], b.shape[-1])


@dataclass(frozen=True)
class Config:
    expand: int
    """Inner width, in widths."""
    head_width: int
    state: int
    conv: int
    """How many tokens, the last included, the convolution before the recurrence sees."""
    chunk: int
    """Only a matter of speed."""


class Mamba2(nn.Module):
    """[B, T, D] -> [B, T, D]. `A_log`, `dt_bias` and `D` should not be decayed in training."""

    def __init__(self, config: Config, site: Site) -> None:
        super().__init__()
        inner = config.expand * site.width
        if inner % config.head_width:
            raise ValueError(f"heads of {config.head_width} do not divide the inner width {inner}")
        self.config = config
        self.inner, self.heads = inner, inner // config.head_width
        mixed = inner + 2 * config.state
        self.in_proj = nn.Linear(site.width, inner + mixed + self.heads, bias=False)
        self.conv = nn.Conv1d(mixed, mixed, config.conv, groups=mixed, padding=config.conv - 1)
        self.A_log = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.dt_bias = nn.Parameter(_initial_dt_bias(self.heads))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = nn.RMSNorm(inner, eps=1e-5)
        self.out_proj = nn.Linear(inner, site.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        state, tokens = self.config.state, x.shape[1]
        parts = [self.inner, self.inner + 2 * state, self.heads]
        z, xbc, dt = self.in_proj(x).split(parts, -1)
        xbc = self.conv(xbc.transpose(1, 2))[..., :tokens].transpose(1, 2)  # the past only
        x, b, c = F.silu(xbc).split([self.inner, state, state], -1)
        x = x.unflatten(-1, (self.heads, -1))  # [B, T, H, P]
        dt = F.softplus(dt + self.dt_bias)  # [B, T, H]
        log_a = dt * -self.A_log.exp()
        y, _ = ssd_chunked(x * dt[..., None], log_a, b, c, self.config.chunk)
        y = (y + self.D[:, None] * x).flatten(2)  # [B, T, E]
        mixed: Tensor = self.out_proj(self.norm(y * F.silu(z)))
        return mixed


def _initial_dt_bias(heads: int) -> Tensor:
    """The inverse softplus of steps spread evenly, in logarithm, from 0.001 to 0.1."""
    dt = torch.empty(heads).uniform_(math.log(1e-3), math.log(1e-1)).exp().clamp(min=1e-4)
    return dt + torch.log(-torch.expm1(-dt))


BLOCK = Block(
    name="mamba2",
    config=Config,
    module=Mamba2,
    samples=(
        (
            Config(expand=2, head_width=16, state=16, conv=4, chunk=16),
            Site(width=16, grid=(8, 8)),
        ),
        (Config(expand=1, head_width=3, state=4, conv=2, chunk=4), Site(width=6, grid=(2, 3))),
    ),
)
