"""What looks like attention, by what it makes of its operands: heads that share keys and values in
one order or another, scales on operands, dtypes. All are right.

A row is a function of q, k, v and x [4,4,4,4], and why its site is left alone, or FREE.
"""

import torch
from torch.nn import functional as F

from formwright.compiler import Reason

from .law import FREE, look_alikes

INF = float("inf")
softmax = F.softmax


def scores(q, k):
    return q @ k.transpose(-1, -2) / 2


def attend(q, k, v):
    return softmax(scores(q, k), -1) @ v


def per_group(q, k, v):
    """Queries split into [B,G,R,L,K], keys and values [B,G,1,S,K]."""
    return attend(q.unflatten(1, (2, 2)), k[:, :2, None], v[:, :2, None]).flatten(1, 2)


def times(t, axis):
    """The first two heads, each twice, with the copies on either side of the heads."""
    wide = t[:, :2].unsqueeze(axis)
    return wide.expand(*(2 if n == axis else -1 for n in range(5))).flatten(1, 2)


GROUPS = {
    "interleaved": lambda q, k, v, x: attend(
        q, k[:, :2].repeat_interleave(2, 1), v[:, :2].repeat_interleave(2, 1)
    ),
    "repeated": lambda q, k, v, x: attend(
        q, k[:, :2].repeat(1, 2, 1, 1), v[:, :2].repeat(1, 2, 1, 1)
    ),
    "keys interleaved, values repeated": lambda q, k, v, x: attend(
        q, k[:, :2].repeat_interleave(2, 1), v[:, :2].repeat(1, 2, 1, 1)
    ),
    "expanded within": lambda q, k, v, x: attend(q, times(k, 2), times(v, 2)),
    "expanded outside": lambda q, k, v, x: attend(q, times(k, 1), times(v, 1)),
    "expanded within and outside": lambda q, k, v, x: attend(q, times(k, 2), times(v, 1)),
    "expanded and interleaved": lambda q, k, v, x: attend(
        q, times(k, 2), v[:, :2].repeat_interleave(2, 1)
    ),
    "keys repeated along the keys": lambda q, k, v, x: attend(
        q, k.repeat(1, 1, 2, 1), v.repeat(1, 1, 2, 1)
    ),
    "values interleaved along the keys": lambda q, k, v, x: attend(
        q, k.repeat(1, 1, 2, 1), v.repeat_interleave(2, 2)
    ),
    "keys repeated along the width": lambda q, k, v, x: attend(
        q, k[..., :2].repeat(1, 1, 1, 2), v[..., :2].repeat(1, 1, 1, 2)
    ),
    "batches repeated": lambda q, k, v, x: attend(
        q, k[:2].repeat(2, 1, 1, 1), v[:2].tile(2, 1, 1, 1)
    ),
    "by a list of times": lambda q, k, v, x: attend(
        q, k[:, :3].repeat_interleave(torch.tensor([2, 1, 1]), 1, output_size=4), v
    ),
    "chosen by index": lambda q, k, v, x: attend(q, k[:, [0, 0, 1, 1]], v[:, [0, 1, 0, 1]]),
    "split queries": lambda q, k, v, x: per_group(q, k, v),
    "split queries, other values": lambda q, k, v, x: attend(
        q.unflatten(1, (2, 2)), k[:, :2, None], v[:, None, :2]
    ).flatten(1, 2),
    "split queries, other order": lambda q, k, v, x: attend(
        q.unflatten(1, (2, 2)).transpose(1, 2), k[:, :2, None], v[:, :2, None]
    ).flatten(1, 2),
    "one head of keys": lambda q, k, v, x: attend(q, k[:, :1], v[:, :1]),
    "one head, expanded over the batch": lambda q, k, v, x: attend(
        q, k[:1, :1].expand(4, 4, 4, 4), v[:1, :1].expand(4, 4, 4, 4)
    ),
    "heads split off the width": lambda q, k, v, x: attend(
        *(t.unflatten(-1, (2, 2)).permute(0, 1, 3, 2, 4) for t in (q, k, v))
    ),
    "heads split off in another order": lambda q, k, v, x: attend(
        q.unflatten(-1, (2, 2)).permute(0, 1, 3, 2, 4),
        *(t.unflatten(-1, (2, 2)).permute(0, 1, 4, 2, 3) for t in (k, v)),
    ),
    "queries mixed with heads": lambda q, k, v, x: attend(
        q.transpose(1, 2).reshape(4, 4, 4, 4), k, v
    ),
    "scores mixed": lambda q, k, v, x: (
        softmax(scores(q, k).view(4, 2, 8, 4), -1).view(4, 4, 4, 4) @ v
    ),
    "scores mixed with keys": lambda q, k, v, x: (
        softmax(scores(q, k).view(4, 4, 2, 8), -1).view(4, 4, 4, 4) @ v
    ),
    "scores mixed to the turned": lambda q, k, v, x: (
        softmax(scores(q, k).view(16, 4, 4).mT.reshape(4, 4, 4, 4), -1) @ v
    ),
}

SCALED = {
    "queries": lambda q, k, v, x: attend(q * 2, k, v),
    "queries, more": lambda q, k, v, x: attend(q * 0.1 / 3, k, v),
    "keys": lambda q, k, v, x: attend(q, k / 3, v),
    "keys, turned": lambda q, k, v, x: softmax(q @ (k.mT * 0.3), -1) @ v,
    "values": lambda q, k, v, x: attend(q, k, v * 5),
    "all": lambda q, k, v, x: attend(q * 2, -k / 3, v * 5) * 0.7,
    "what is used again": lambda q, k, v, x: ((y := q * 2), attend(y, y, y))[1] + y,
    "what was scaled before": lambda q, k, v, x: attend((q + x) * 2, (k + x) / 3, v + x),
    "by zero": lambda q, k, v, x: attend(q * 0.0, k, v),
    "by a negative": lambda q, k, v, x: attend(q * -0.5, k, v),
    "per head": lambda q, k, v, x: attend(q * x[0, :, :1, :1], k, v),
    "per width": lambda q, k, v, x: attend(q * x[..., :1, :], k, v),
    "by the queries": lambda q, k, v, x: attend(q * q, k, v),
    "normed": lambda q, k, v, x: attend(F.normalize(q, dim=-1) * 3, F.normalize(k, dim=-1), v),
    "number over": lambda q, k, v, x: attend(2 / q, k, v),
    "shifted": lambda q, k, v, x: attend(q + 1, k - 2, v),
    "into place": lambda q, k, v, x: attend((q * 1).mul_(2), (k * 2).div_(4), v),
}

DTYPES = {
    "whole numbers": (
        lambda q, k, v, x: softmax(((4 * q).long() @ (4 * k).long().mT).double(), -1) @ v,
        Reason.DTYPES,
    ),
    "complex": (
        lambda q, k, v, x: softmax((torch.complex(q, x) @ torch.complex(k, v).mT).real, -1) @ v,
        (Reason.UNKNOWN_OP, Reason.DTYPES),
    ),
    "complex values": (
        lambda q, k, v, x: (softmax(scores(q, k), -1).cdouble() @ torch.complex(v, x)).imag,
        (Reason.UNKNOWN_OP, Reason.DTYPES),
    ),
    "softmax in float32": (
        lambda q, k, v, x: softmax(scores(q, k), -1, dtype=torch.float32).double() @ v,
        Reason.DTYPES,
    ),
    "softmax in float64": (
        lambda q, k, v, x: softmax(scores(q, k), -1, dtype=torch.float64) @ v,
        FREE,
    ),
    "scores in float32": (
        lambda q, k, v, x: softmax(scores(q.float(), k.float()).double(), -1) @ v,
        Reason.DTYPES,
    ),
    "scores in float16": (
        lambda q, k, v, x: softmax(scores(q, k).half(), -1, dtype=torch.float64) @ v,
        Reason.DTYPES,
    ),
    "values in float32": (
        lambda q, k, v, x: (softmax(scores(q, k), -1).float() @ v.float()).double(),
        Reason.DTYPES,
    ),
}

ROWS = {
    **{f"groups: {name}": (function, FREE) for name, function in GROUPS.items()},
    **{f"scaled: {name}": (function, FREE) for name, function in SCALED.items()},
    **{f"dtypes: {name}": row for name, row in DTYPES.items()},
}


test_look_alikes_are_right = look_alikes(ROWS)
