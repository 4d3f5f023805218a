"""What looks like attention between its two products: scales, biases, masks, what is done to scores
and probabilities. All are right; why each is left alone, or FREE, stands beside it.

s are scores, p probabilities, x a tensor, all [B,H,L,S] with all sizes equal. About one row in
eight of `seen(x)` sees no key.
"""

import torch
from torch.nn import functional as F

from formwright.compiler import Reason

from .law import FREE, NO_SITE, look_alikes

INF, NAN, LOWEST = float("inf"), float("nan"), torch.finfo(torch.float32).min
MUTED, READ, UNKNOWN = Reason.MASK_NOT_PROVEN, Reason.OTHER_READERS, Reason.UNKNOWN_OP
SCALED = (Reason.SCALE_NOT_CONSTANT, Reason.SHAPES, Reason.UNKNOWN_OP)
softmax, where = F.softmax, torch.where


def seen(x):
    return x > 0.2


def triangle(n=4, diagonal=0):
    return torch.ones(n, n, dtype=torch.bool).tril(diagonal)


def padding(x):
    """The first keys of some sequences are hidden, [B,1,1,S]."""
    return torch.arange(4) >= torch.arange(4).view(4, 1, 1, 1)


SCALES = {
    "zero": (lambda s, x: s * 0.0, FREE),
    "negative": (lambda s, x: s * -0.5, FREE),
    "divided by a negative": (lambda s, x: s / -2, FREE),
    "negated": (lambda s, x: -s, FREE),
    "infinite": (lambda s, x: s * INF, FREE),
    "NaN": (lambda s, x: s * NAN, FREE),
    "divided by zero": (lambda s, x: s / 0, FREE),
    "divided by infinity": (lambda s, x: s / INF, FREE),
    "a number of the call": (lambda s, x: s * x.mean(), FREE),
    "divided by one": (lambda s, x: s / x.square().mean(), FREE),
    "one that is zero": (lambda s, x: s * (x.mean() * 0), FREE),
    "divided by one that is zero": (lambda s, x: s / (x[0, :, :1, :1] * 0), FREE),
    "per batch": (lambda s, x: s * x[:, :1, :1, :1], FREE),
    "per head": (lambda s, x: s * x[0, :, :1, :1], FREE),
    "per query": (lambda s, x: s / x[..., :1], FREE),
    "per key": (lambda s, x: s * x[..., :1, :], FREE),
    "per key, one axis": (lambda s, x: x[0, 0, 0] * s, FREE),
    "per score": (lambda s, x: s * x, SCALED),
    "by booleans": (lambda s, x: s * seen(x), SCALED),
    "behind a bias": (lambda s, x: (s + x) * 0.3, FREE),
    "per head behind a bias": (lambda s, x: (s + x) * x[0, :, :1, :1], FREE),
    "negative behind a mask": (lambda s, x: where(seen(x), s, -1e4) * -1, SCALED),
    "small behind a mask": (lambda s, x: where(seen(x), s, -1e6) * 1e-6, MUTED),
    "small, per head, behind": (
        lambda s, x: where(seen(x), s, -1e6) * (x[0, :, :1, :1] * 1e-6),
        (MUTED, *SCALED),
    ),
    "a number over scores": (lambda s, x: 2 / s, SCALED),
    "reciprocal": (lambda s, x: s.reciprocal(), UNKNOWN),
    "less x": (lambda s, x: s - x, FREE),
    "x less scores": (lambda s, x: x - s, FREE),
    "alpha": (lambda s, x: torch.add(s, x, alpha=3), FREE),
    "alpha on the scores": (lambda s, x: torch.sub(x, s, alpha=-3), FREE),
    "rounded down": (lambda s, x: torch.div(s, 0.5, rounding_mode="floor"), UNKNOWN),
}

SCORES = {
    "soft cap": (lambda s, x: 5 * (s / 5).tanh(), UNKNOWN),
    "clamped": (lambda s, x: s.clamp(-1, 1), UNKNOWN),
    "squared": (lambda s, x: s**2, UNKNOWN),
    "by themselves": (lambda s, x: s * s, (READ, *SCALED)),
    "twice": (lambda s, x: s + s, FREE),
    "less their largest": (lambda s, x: s - s.amax(-1, keepdim=True), FREE),
    "less their largest, frozen": (lambda s, x: s - s.amax(-1, keepdim=True).detach(), FREE),
    "normed": (lambda s, x: s / s.norm(dim=-1, keepdim=True), (READ, *SCALED)),
    "hidden where negative": (lambda s, x: s.masked_fill(s < 0, -INF), READ),
    "largest two": (lambda s, x: s.masked_fill(s < s.topk(2).values[..., -1:], -INF), READ),
    "above a threshold": (lambda s, x: where(s > x, s, -INF), READ),
    "sorted": (lambda s, x: s.sort(-1).values, NO_SITE),
    "rolled": (lambda s, x: s.roll(1, -1), UNKNOWN),
    "flipped": (lambda s, x: s.flip(-1), UNKNOWN),
    "a column more, dropped": (lambda s, x: torch.cat([s, x[..., :1]], -1)[..., :-1], FREE),
    "gathered": (lambda s, x: s.gather(-1, x.argsort(-1)), UNKNOWN),
    "triangle": (lambda s, x: s.tril(), UNKNOWN),
    "dropout": (lambda s, x: F.dropout(s, 0.5), (UNKNOWN, Reason.DROPOUT)),
    "dropout of all": (lambda s, x: F.dropout(s, 1.0), (UNKNOWN, Reason.DROPOUT)),
    "softmax": (lambda s, x: softmax(s, -1), UNKNOWN),
    "heads and queries swapped and back": (
        lambda s, x: (s.transpose(1, 2) + x).transpose(1, 2),
        FREE,
    ),
    "heads mixed with queries": (lambda s, x: s.transpose(1, 2).reshape(4, 4, 4, 4), FREE),
    "keys mixed with queries": (lambda s, x: s.mT.reshape(4, 4, 4, 4), FREE),
    "through float32": (lambda s, x: s.float().double(), Reason.DTYPES),
    "through whole numbers": (lambda s, x: s + s.long() * 0.0, READ),
    "complex": (lambda s, x: torch.complex(s, x).real, UNKNOWN),
    "straight through": (lambda s, x: s + (x - s).detach(), READ),
    "frozen": (lambda s, x: s.detach(), FREE),
}

BIASES = {
    "dense": lambda x: x,
    "per query and key": lambda x: x[0, 0],
    "its turned": lambda x: x[0, 0].mT,
    "per batch": lambda x: x[:, :1, :1, :1],
    "per head": lambda x: x[0, :, :1, :1],
    "per query": lambda x: x[..., :1],
    "per key": lambda x: x[:, :, :1],
    "one axis": lambda x: x[0, 0, 0],
    "no axis": lambda x: x.mean(),
    "an axis more": lambda x: x[None] * torch.ones(2, 1, 1, 1, 1, dtype=x.dtype),
    "batch as keys": lambda x: x[:, 0, 0, 0],
    "heads as queries": lambda x: x[0, :, 0, :1],
    "expanded": lambda x: x[:, :1].expand(4, 4, 4, 4),
    "booleans": lambda x: seen(x),
    "whole numbers": lambda x: (4 * x).long(),
    "large whole numbers": lambda x: where(seen(x), 0, -(2**40)),
    "narrow": lambda x: x.float(),
    "minus infinity": lambda x: where(seen(x), 0.0, -INF),
    "minus infinity on rows": lambda x: where(seen(x[..., :1]), 0.0, -INF),
    "very negative": lambda x: where(seen(x), 0.0, -1e9),
    "lowest": lambda x: where(seen(x), 0.0, LOWEST),
    "lowest, twice": lambda x: where(seen(x), 0.0, LOWEST) + where(seen(x.mT), 0.0, LOWEST),
    "plus infinity": lambda x: where(seen(x), 0.0, INF),
    "both infinities": lambda x: where(seen(x), -INF, INF),
    "NaN": lambda x: where(x > -2, x, NAN),
    "NaN and minus infinity": lambda x: where(x > -2, where(seen(x), 0.0, -INF), NAN),
    "large": lambda x: x * 1e6,
    "close to what hides": lambda x: x - 1e4,
    "all below what hides": lambda x: x - 2e4,
    "some below what hides": lambda x: where(seen(x), -9999.0, -10001.0),
    "hides less than it lifts": lambda x: where(seen(x), 0.0, -1e4) + where(x > 0, 2e4, 0.0),
    "alibi": lambda x: -(torch.arange(4.0)[:, None] - torch.arange(4.0)).abs().double(),
}

MASKS = {
    "-1": (lambda s, x: s.masked_fill(x > 0, -1), MUTED),
    "-10": (lambda s, x: where(seen(x), s, -10.0), MUTED),
    "-100": (lambda s, x: s.masked_fill(x > 0, -100.0), MUTED),
    "0": (lambda s, x: s.masked_fill(x > 0, 0), MUTED),
    "1e4": (lambda s, x: s.masked_fill(x > 0, 1e4), MUTED),
    "infinity": (lambda s, x: s.masked_fill(x > 0, INF), MUTED),
    "NaN": (lambda s, x: s.masked_fill(x > 1, NAN), MUTED),
    "a tensor": (lambda s, x: s.masked_fill(x > 0, x.min() * 1e9), MUTED),
    "another tensor": (lambda s, x: where(seen(x), s, x * 1e9), MUTED),
    "other scores": (lambda s, x: where(seen(x), s, x @ x), FREE),
    "no scores": (lambda s, x: where(seen(s), x, -1e9), (UNKNOWN, READ)),
    "-1e4": (lambda s, x: where(seen(x), s, -1e4), FREE),
    "-1e9": (lambda s, x: where(seen(x), s, -1e9), FREE),
    "lowest": (lambda s, x: where(seen(x), s, LOWEST), FREE),
    "minus infinity": (lambda s, x: where(seen(x), s, -INF), FREE),
    "swapped arms": (lambda s, x: where(seen(x), -INF, s), FREE),
    "swapped arms, finite": (lambda s, x: where(~seen(x), -1e9, s), FREE),
    "by numbers": (lambda s, x: s.masked_fill(seen(x).logical_not(), -1e9), FREE),
    "per query": (lambda s, x: s.masked_fill(x[..., :1] > 0, -1e9), FREE),
    "per query, minus infinity": (lambda s, x: s.masked_fill(x[..., :1] > 0, -INF), FREE),
    "per key": (lambda s, x: s.masked_fill(x[:, :1, :1] > 0, -INF), FREE),
    "one axis": (lambda s, x: s.masked_fill(x[0, 0, 0] > 0, -1e9), FREE),
    "no axis": (lambda s, x: s.masked_fill(x.mean() > 0, -INF), FREE),
    "an axis more": (lambda s, x: where(seen(torch.stack([x, x.mT])), s, -1e9), FREE),
    "heads as queries": (lambda s, x: s.masked_fill(x[0, :, 0, :1] > 0, -1e9), FREE),
    "one fill twice": (lambda s, x: where(triangle(), where(seen(x), s, -1e9), -1e9), FREE),
    "infinity, then finite": (lambda s, x: where(triangle(), where(seen(x), s, -INF), -1e9), FREE),
    "finite, then infinity": (lambda s, x: where(triangle(), where(seen(x), s, -1e9), -INF), FREE),
    "deep, then finite": (lambda s, x: where(triangle(), where(seen(x), s, -1e35), -1e9), FREE),
    "finite, then deep": (lambda s, x: where(triangle(), where(seen(x), s, -1e9), -1e35), FREE),
    "bias, then mask": (lambda s, x: where(triangle(), s + where(seen(x), 0.0, -1e9), -1e4), FREE),
    "padding, then mask": (
        lambda s, x: where(triangle(), s + where(padding(x), 0.0, LOWEST), LOWEST),
        FREE,
    ),
    "mask, then padding": (
        lambda s, x: where(triangle(), s, LOWEST) + where(padding(x), 0.0, LOWEST),
        FREE,
    ),
    "mask, then large bias": (lambda s, x: s.masked_fill(seen(x), -1e9) + x * 1e9, FREE),
    "mask, then larger bias": (lambda s, x: s.masked_fill(seen(x), -1e30) + x * 1e31, FREE),
    "large bias, then mask": (lambda s, x: where(triangle(), s + x * 1e6, -1e4), FREE),
    "infinite, then large bias": (lambda s, x: s.masked_fill(seen(x), -INF) + x * 1e6, FREE),
    "infinite, then infinite": (
        lambda s, x: s.masked_fill(seen(x), -INF) + where(seen(x.mT), INF, 0.0),
        FREE,
    ),
    "a number, then mask": (lambda s, x: where(seen(x), s - 2e4, -1e4), FREE),
    "large scores, then mask": (lambda s, x: where(seen(x), s * 1e5, -1e4), FREE),
    "large scores, then bias": (lambda s, x: s * 1e5 + where(seen(x), 0.0, -1e5), FREE),
    "mask, then clamp": (lambda s, x: where(seen(x), s, -1e9).clamp(min=-3), UNKNOWN),
    "mask, then float16": (lambda s, x: where(seen(x), s, -1e9).half().double(), Reason.DTYPES),
}

PROBABILITIES = {
    "gated": (lambda p, x: p * x, UNKNOWN),
    "gated by a sigmoid": (lambda p, x: p * x[..., :1].sigmoid(), UNKNOWN),
    "scaled": (lambda p, x: p * 2, UNKNOWN),
    "biased": (lambda p, x: p + x, UNKNOWN),
    "hidden": (lambda p, x: p.masked_fill(x > 0, 0.0), UNKNOWN),
    "hidden and normed": (lambda p, x: (y := p * seen(x)) / (y.sum(-1, keepdim=True) + 1), UNKNOWN),
    "normed again": (lambda p, x: p / p.sum(-1, keepdim=True), READ),
    "normed over the queries": (lambda p, x: p / p.sum(-2, keepdim=True), READ),
    "log": (lambda p, x: (p + 1).log(), UNKNOWN),
    "softmax again": (lambda p, x: softmax(p, -1), UNKNOWN),
    "frozen": (lambda p, x: p.detach(), FREE),
    "straight through": (lambda p, x: p + (p.round() - p).detach(), READ),
    "rolled": (lambda p, x: p.roll(1, -1), UNKNOWN),
    "triangle": (lambda p, x: p.tril(), UNKNOWN),
    "through float32": (lambda p, x: p.float().double(), Reason.DTYPES),
    "dropout of all": (lambda p, x: F.dropout(p, 1.0), Reason.DROPOUT),
    "dropout of nothing": (lambda p, x: F.dropout(p, 0.0), FREE),
    "dropout of heads": (lambda p, x: F.dropout2d(p, 0.5), UNKNOWN),
    "dropout by hand": (lambda p, x: p * (torch.rand_like(p) > 0.5) * 2, (UNKNOWN, READ)),
    "heads swapped with queries": (lambda p, x: p.transpose(1, 2), FREE),
    "heads mixed by weights": (lambda p, x: torch.einsum("bhqk,hg->bgqk", p, x[0, 0]), FREE),
    "one head of all": (lambda p, x: p[:, :1], UNKNOWN),
    "one query again": (lambda p, x: p[..., :1, :].expand(4, 4, 4, 4), UNKNOWN),
}


def of_scores(edit):
    return lambda q, k, v, x: softmax(edit(q @ k.transpose(-1, -2) / 2, x), -1) @ v


def of_bias(bias):
    return of_scores(lambda s, x: s + bias(x))


def of_probabilities(edit):
    return lambda q, k, v, x: edit(softmax(q @ k.transpose(-1, -2) / 2, -1), x) @ v


ROWS = {
    **{f"scale: {n}": (of_scores(f), e) for n, (f, e) in SCALES.items()},
    **{f"scores: {n}": (of_scores(f), e) for n, (f, e) in SCORES.items()},
    **{f"bias: {n}": (of_bias(f), FREE) for n, f in BIASES.items()},
    **{f"mask: {n}": (of_scores(f), e) for n, (f, e) in MASKS.items()},
    **{f"probabilities: {n}": (of_probabilities(f), e) for n, (f, e) in PROBABILITIES.items()},
}


test_look_alikes_are_right = look_alikes(ROWS)
