"""Attention by its definition, and the gradient of that: what the fused kernel is measured by.

Shapes: B batch, H heads, L queries, S keys, K key width, V value width; keys and values may have
fewer heads than queries (H a multiple of theirs).

    p = softmax(where(mask, scale * q @ k.T + bias, fill))        out = p @ v
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Terms(NamedTuple):
    """What happens to the products before softmax; bias and mask broadcast to [B, H, L, S]."""

    bias: torch.Tensor | None
    mask: torch.Tensor | None
    scale: float
    fill: float


def share(x: torch.Tensor, heads: int) -> torch.Tensor:
    """Keys or values [B, G, S, K] for each of `heads` query heads."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, terms: Terms) -> torch.Tensor:
    """The definition [B, H, L, V]; softmax in float32 at least, differentiable any number of
    times."""
    return (probabilities(q, k, terms).to(v.dtype)) @ share(v, q.shape[1])


def probabilities(q: torch.Tensor, k: torch.Tensor, terms: Terms) -> torch.Tensor:
    """softmax over the keys [B, H, L, S], in float32 at least."""
    scores = q @ share(k, q.shape[1]).transpose(-1, -2) * terms.scale
    if terms.bias is not None:
        scores = scores + terms.bias
    if terms.mask is not None:
        scores = torch.where(terms.mask, scores, terms.fill)
    wide = torch.promote_types(scores.dtype, torch.float32)
    return torch.softmax(scores, -1, dtype=wide)


def gradients(
    g: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, terms: Terms
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients for q, k, v and the scores after the bias [B, H, L, S], given that of out.

    ds = p * (dp - sum(p * dp)) where visible, dp = g @ v.T
    """
    heads = q.shape[1]
    p = probabilities(q, k, terms)
    dp = (g @ share(v, heads).transpose(-1, -2)).to(p.dtype)
    ds = p * (dp - (dp * p).sum(-1, keepdim=True))
    if terms.mask is not None:
        ds = torch.where(terms.mask, ds, 0.0)
    scaled = (ds * terms.scale).to(q.dtype)
    dq = scaled @ share(k, heads)
    dk = _gather(scaled.transpose(-1, -2) @ q, k)
    dv = _gather(p.to(v.dtype).transpose(-1, -2) @ g, v)
    return dq, dk, dv, ds


def _gather(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Sum over the query heads that share a head of `like`."""
    heads = like.shape[1]
    return x if x.shape[1] == heads else x.unflatten(1, (heads, -1)).sum(2)
