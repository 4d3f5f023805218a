"""One linear recurrence in three forms: a state that decays, is written to and read by each token.

    h[t] = a[t] * h[t-1] + v[t] k[t]^T        y[t] = h[t] q[t]

`recur_naive` is the definition, `recur_chunked` the same numbers by matrix products ("Transformers
are SSMs", Dao and Gu, 2024), `recur_step` one token of it. State-space models, linear attention
with decay and retention are all rows on it: what differs is how they make a, k, q and v. It must
not know how. Next: `mamba2.py`.

What is summed and kept is float32 at least, y is of the dtype of v.

Shapes: B batch, T tokens, H heads, P value width, G groups of R = H / G heads that share keys and
queries, N key width, Q chunk, C chunks (Q * C >= T).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .cost import Cost, product


def recur_naive(
    v: Tensor, log_a: Tensor, k: Tensor, q: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One token after the other: v [B,T,H,P], log_a [B,T,H], k and q [B,T,G,N]; h starts as
    `state` [B,H,P,N], or zeros. Returns y [B,T,H,P] and the last h."""
    h = zero_state(v, k) if state is None else state
    y = []
    for t in range(v.shape[1]):
        read, h = recur_step(v[:, t], log_a[:, t], k[:, t], q[:, t], h)
        y.append(read)
    return torch.stack(y, 1), h


def recur_step(
    v: Tensor, log_a: Tensor, k: Tensor, q: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One token: v [B,H,P], log_a [B,H], k and q [B,G,N], state [B,H,P,N]. Returns y [B,H,P] and
    the state behind it."""
    dtype = v.dtype
    v, log_a, k, q = (wide(x) for x in (v, log_a, k, q))
    k, q = (x.repeat_interleave(v.shape[1] // x.shape[1], 1).unsqueeze(2) for x in (k, q))
    h = log_a[..., None, None].exp() * state + v.unsqueeze(-1) * k
    return (h * q).sum(-1).to(dtype), h


def recur_chunked(
    v: Tensor,
    log_a: Tensor,
    k: Tensor,
    q: Tensor,
    chunk: int,
    state: Tensor | None = None,
    real: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `recur_naive`, in chunks of `chunk` tokens: inside a chunk it is attention with a mask of
    decays, and only the states between chunks are passed on in turn. Where `real` [B, T] is False
    nothing is written, and nothing decays."""
    if real is not None:
        v = v.masked_fill(~real[..., None, None], 0)
        log_a = log_a.masked_fill(~real[..., None], 0)
    dtype = v.dtype
    v, log_a, k, q = (wide(x) for x in (v, log_a, k, q))
    h = zero_state(v, k) if state is None else state
    tokens, groups = v.shape[1], k.shape[2]
    chunk = min(chunk, tokens)
    v, log_a, k, q = (_in_chunks(part, chunk).transpose(2, 3) for part in (v, log_a, k, q))
    v, log_a = v.unflatten(2, (groups, -1)), log_a.unflatten(2, (groups, -1))  # [B, C, G, R, Q, ..]
    k, q = k.unsqueeze(3), q.unsqueeze(3)  # [B, C, G, 1, Q, N]
    h = h.unflatten(1, (groups, -1))  # [B, G, R, P, N]

    sums = segment_sums(log_a)  # [B, C, G, R, Q, Q]
    since_start = log_a.cumsum(-1)  # [B, C, G, R, Q], the token's own decay included
    inside = (q @ k.transpose(-1, -2) * sums.exp()) @ v  # [B, C, G, R, Q, P]

    until_end = sums[..., -1, :].exp()  # [B, C, G, R, Q]
    written = (v * until_end[..., None]).transpose(-1, -2) @ k  # [B, C, G, R, P, N]
    decay = since_start[..., -1, None, None].exp()  # [B, C, G, R, 1, 1]
    before = []
    for at in range(v.shape[1]):
        before.append(h)
        h = decay[:, at] * h + written[:, at]
    carried = q @ torch.stack(before, 1).transpose(-1, -2)  # [B, C, G, R, Q, P]

    y = inside + since_start.exp()[..., None] * carried
    y = y.flatten(2, 3).transpose(2, 3).flatten(1, 2)[:, :tokens]
    return y.to(dtype), h.flatten(1, 2)


def segment_sums(x: Tensor) -> Tensor:
    """[..., Q] -> [..., Q, Q]: at [i, j] the sum of x[j+1] .. x[i], and -inf above the diagonal.

    Summed where it is needed, never as a difference of two running sums: those grow with the
    sequence, and their difference would lose what a fast decay leaves.
    """
    size = x.shape[-1]
    lower = torch.ones(size, size, dtype=torch.bool, device=x.device).tril()
    terms = x[..., :, None].expand(*x.shape, size).masked_fill(~lower.tril(-1), 0)
    return terms.cumsum(-2).masked_fill(~lower, -torch.inf)


def zero_state(v: Tensor, k: Tensor) -> Tensor:
    """The state before any token: v [B,...,H,P], k [B,...,G,N] -> [B,H,P,N]."""
    return wide(v).new_zeros(v.shape[0], *v.shape[-2:], k.shape[-1])


def wide(x: Tensor) -> Tensor:
    """x in float32 at least: in half precision a slow decay is 1, and a state never fades."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _in_chunks(x: Tensor, chunk: int) -> Tensor:
    """[B, T, ...] -> [B, C, Q, ...]. The last chunk is filled up with zeros: tokens that write
    nothing and whose decay is 1, so that the last state stays right."""
    missing = -x.shape[1] % chunk
    if missing:
        x = torch.cat([x, x.new_zeros(x.shape[0], missing, *x.shape[2:])], 1)
    return x.reshape(x.shape[0], x.shape[1] // chunk, chunk, *x.shape[2:])


def recurrence_cost(
    tokens: int, chunk: int, heads: int, values: int, groups: int, keys: int
) -> Cost:
    """Of `recur_chunked` for one sequence: scores by group, everything else by head."""
    chunk = min(chunk, tokens)
    chunks = -(-tokens // chunk)
    scores = product(chunk, keys, chunk, times=chunks * groups)
    inside = product(chunk, chunk, values, times=chunks * heads)
    written = product(values, chunk, keys, times=chunks * heads)
    carried = product(chunk, keys, values, times=chunks * heads)
    return scores + inside + written + carried + Cost(state=heads * values * keys)
