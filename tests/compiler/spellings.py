"""Spellings of attention: choices that can be combined freely, and the function that each makes.

Shapes: b batch, h heads (g of keys and values), l queries, s keys, k key width, v value width.
`test_attention_fuzz.py` draws them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

INF, LOWEST = float("inf"), torch.finfo(torch.float32).min

# --- the choices --------------------------------------------------------------------------------

# The axes of the leaf that q, k or v [b,h,n,d] comes from; two letters are one axis.
LAYOUTS = ["b h n d", "b n h d", "b n hd", "bh n d", "n b h d", "n bh d", "d b h n", "b h d n"]
GROUPINGS = ["interleaved", "repeated", "expanded", "split", "broadcast"]
PRODUCTS = ["matmul", "bmm", "baddbmm", "einsum"]
SCALES = {
    "queries": lambda q: q * 0.7,
    "keys": lambda k: k / 3,
    "times": lambda s: s * 0.3,
    "over": lambda s: s / 3,
    "left": lambda s: 0.5 * s,
    "in place": lambda s: s.mul_(0.4),
}
# The axes of what is given; what is computed from it may have more.
BIASES = {
    "none": "",
    "dense": "bhls",
    "per head": "hls",
    "per key": "bs",
    "pairs": "ls",
    "alibi": "ls",
}
MASKS = {"none": "", "padding": "bs", "pairs": "bls", "causal": "", "causal padding": "bs"}
HIDES = {
    "where": lambda s, keep, fill: torch.where(keep, s, fill),
    "where, arms swapped": lambda s, keep, fill: torch.where(~keep, fill, s),
    "filled": lambda s, keep, fill: s.masked_fill(~keep, fill),
    "filled in place": lambda s, keep, fill: s.masked_fill_(keep.logical_not(), fill),
    "filled by numbers": lambda s, keep, fill: s.masked_fill(keep.to(s.dtype) == 0, fill),
    "added": lambda s, keep, fill: s + torch.zeros(keep.shape).to(s).masked_fill(~keep, fill),
    "added by where": lambda s, keep, fill: torch.where(keep, 0.0, fill) + s,
    "added, as BERT does": lambda s, keep, fill: s + (1.0 - keep.to(s.dtype)) * max(fill, LOWEST),
}
DROPOUTS = {
    "none": lambda p: p,
    "off": lambda p: F.dropout(p, 0.3, training=False),
    "of nothing": lambda p: F.dropout(p, 0.0),
    "cast": lambda p: p.to(torch.float64),
}
TAILS = {
    "plain": lambda o: o,
    "merged": lambda o: o.transpose(1, 2).reshape(o.shape[0], o.shape[2], -1),
    "flat": lambda o: o.reshape(-1, *o.shape[2:]),
    "tokens first": lambda o: o.permute(2, 0, 1, 3),
    "in place": lambda o: o.transpose(1, 2).flatten(2).add_(1),
    "read": lambda o: o * 2,
}

# What a mutation changes, and how; all sizes are 4 then.
MUTATIONS = {
    "keys": {
        "heads swapped with tokens": lambda k: k.transpose(1, 2),
        "turned": lambda k: k.mT,
        "of other heads": lambda k: k.flip(1),
        "of other batches": lambda k: k.roll(1, 0),
    },
    "values": {
        "heads swapped with tokens": lambda v: v.transpose(1, 2),
        "turned": lambda v: v.mT,
        "in another group": lambda v: v.unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2),
        "of other tokens": lambda v: v.roll(1, 2),
    },
    "scores": {
        "turned": lambda s: s.transpose(-1, -2),
        "heads swapped": lambda s: s.transpose(0, 1),
        "negated": lambda s: -s,
        "capped": lambda s: s.tanh(),
        "squared": lambda s: s * s,
        "hidden by themselves": lambda s: s.masked_fill(s < 0, -1e9),
        "hidden a little": lambda s: torch.where(torch.ones(4, 4).tril() > 0, s, -9.0),
        "hidden, then scaled": lambda s: s.masked_fill(torch.ones(4).bool(), -1e4) * 1e-3,
        "written in part": lambda s: (s.select(-1, 1).zero_(), s)[1],
        "large": lambda s: s * 1e5,
        "frozen": lambda s: s.detach(),
        "shifted": lambda s: s - 2e4,
    },
    "probabilities": {
        "turned": lambda p: p.transpose(-1, -2),
        "heads swapped": lambda p: p.transpose(0, 1),
        "gated": lambda p: p * 2,
        "normed": lambda p: p / p.sum(-2, keepdim=True),
        "shifted": lambda p: p + 0.1,
        "frozen": lambda p: p.detach(),
    },
    "axis": {"0": 0, "1": 1, "-2": -2},
    "readers": {"scores": "scores", "probabilities": "probabilities"},
}


@dataclass(frozen=True)
class Spelling:
    """One way to write attention. `sizes` of b, h, l, s, k, v; `order` and `result` are the axes of
    what einsum gives."""

    sizes: tuple[int, ...]
    layouts: tuple[str, str, str]
    groups: int
    grouping: str
    product: str
    order: str
    result: str
    scales: tuple[str, ...]
    bias: str
    mask: str
    hides: str
    fill: float
    dropout: str
    tail: str
    mutation: tuple[str, str] | None
    calls: int
    train: bool
    learned: bool
    dynamic: bool | None

    @property
    def promised(self):
        """Whether this is attention that has to be rewritten: not where something is written to the
        result or through a view, and where sizes are numbers."""
        fills = self.hides == "filled in place" and self.mask != "none"
        views = self.product in ("bmm", "baddbmm") or self.groups < self.sizes[1]
        writes = self.tail == "in place" or (views and (fills or "in place" in self.scales))
        return self.mutation is None and not writes and not self.dynamic

    def at(self, stage):
        """What the mutation does at this stage; None: it happens elsewhere, or there is none."""
        where, name = self.mutation or (None, None)
        return MUTATIONS[where][name] if where == stage else None

    def mutated(self, stage, value):
        """`value` as the mutation leaves it."""
        change = self.at(stage)
        return value if change is None else change(value)

    def scaled(self, value, *names):
        """`value` with those of the scales that are among `names`."""
        for name in self.scales:
            value = SCALES[name](value) if name in names else value
        return value


# --- spelling it out ----------------------------------------------------------------------------


def unfolded(x, layout, heads):
    """The leaf `x` as [b,h,n,d], by views."""
    for i, word in enumerate(layout.split()):
        if len(word) > 1:
            x = x.unflatten(i, (-1, heads) if word == "bh" else (heads, -1))
    axes = layout.replace(" ", "")
    return x.permute([axes.index(a) for a in "bhnd"])


def shared(c, x):
    """Keys or values [b,g,s,d] for all heads."""
    times = c.sizes[1] // c.groups
    if times == 1:
        return x
    if c.product == "matmul" and c.grouping == "split":
        return x[:, :, None]
    if c.product == "matmul" and c.grouping == "broadcast" and c.groups == 1:
        return x
    if c.grouping == "repeated":
        return x.repeat(1, times, 1, 1)
    if c.grouping == "interleaved":
        return x.repeat_interleave(times, 1)
    return x[:, :, None].expand(-1, -1, times, -1, -1).flatten(1, 2)


def placed(x, axes, order):
    """`x` with `axes`, so that it broadcasts to a value with the axes `order`."""
    x = x.permute([axes.index(a) for a in order if a in axes])
    return x[tuple(slice(None) if a in axes else None for a in order)]


def einsum(x, y, axes, wanted):
    """torch.einsum of x and y, whose axes are `axes`, each turned as `wanted` has them."""
    operands, names = [], []
    for value, own in zip((x, y), axes, strict=True):
        order = sorted(own, key=f"{wanted}{own}".index)
        operands.append(value.permute([own.index(a) for a in order]))
        names.append("".join(order))
    return torch.einsum(f"{names[0]},{names[1]}->{wanted}", *operands)


def first_product(c, q, k, bias):
    """The scores with their bias, the axes as in `c.order`."""
    if c.product == "einsum":
        s = einsum(q, k, ("bhlk", "bhsk"), c.order)
    elif k.dim() == 5:
        s = (q.unflatten(1, (c.groups, -1)) @ k.transpose(-1, -2)).flatten(1, 2)
    elif c.product == "matmul":
        s = q @ k.transpose(-1, -2)
    else:
        q3, k3 = q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2)
        if c.product == "bmm":
            s = torch.bmm(q3, k3)
        elif bias is None:
            s = torch.baddbmm(q3.new_zeros(1, 1, 1), q3, k3, beta=0, alpha=0.4)
        else:
            wide = bias.expand(*q.shape[:3], k.shape[2]).flatten(0, 1)
            s, bias = torch.baddbmm(wide, q3, k3, beta=2), None
        s = s.unflatten(0, (-1, q.shape[1]))
    s = c.scaled(s, "times", "over", "left", "in place")
    return s if bias is None else s + bias


def second_product(c, p, v):
    """The result [b,h,l,v]."""
    if c.product == "einsum":
        o = einsum(p, v, (c.order, "bhsv"), c.result)
        return o.permute([c.result.index(a) for a in "bhlv"])
    if v.dim() == 5:
        return (p.unflatten(1, (c.groups, -1)) @ v).flatten(1, 2)
    if c.product == "matmul":
        return p @ v
    return torch.bmm(p.flatten(0, 1), v.flatten(0, 1)).unflatten(0, (-1, p.shape[1]))


def spelled_out(c):
    """The function of q, k, v, bias and keep that `c` describes."""

    def once(q, k, v, bias, keep):
        q = c.scaled(unfolded(q, c.layouts[0], c.sizes[1]), "queries")
        k = c.scaled(unfolded(k, c.layouts[1], c.groups), "keys")
        v = unfolded(v, c.layouts[2], c.groups)
        tokens, keys = torch.arange(q.shape[2])[:, None], torch.arange(k.shape[2])
        if c.bias == "alibi":
            bias = -(tokens - keys).abs().to(q.dtype) / 8
        bias = None if c.bias == "none" else placed(bias, BIASES[c.bias], c.order)
        k, v = c.mutated("keys", shared(c, k)), c.mutated("values", shared(c, v))

        s = c.mutated("scores", first_product(c, q, k, bias))
        visible = placed(keys <= tokens, "ls", c.order)
        if c.mask != "causal":
            given = placed(keep, MASKS[c.mask], c.order)
            visible = given & visible if c.mask == "causal padding" else given
        if c.mask != "none":
            s = HIDES[c.hides](s, visible, c.fill)
        axis = c.at("axis")
        p = F.softmax(s, c.order.index("s") if axis is None else axis)
        p = c.mutated("probabilities", DROPOUTS[c.dropout](p))
        out = TAILS[c.tail](second_product(c, p, v))
        reader = c.at("readers")
        return (out,) if reader is None else (out, s if reader == "scores" else p)

    def function(q, k, v, bias, keep):
        out = once(q, k, v, bias, keep)
        return out if c.calls == 1 else (*out, *once(q.sin(), k, v, bias, keep))

    return function
