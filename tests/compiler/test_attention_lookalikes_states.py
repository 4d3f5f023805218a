"""What looks like attention, and is written to, read elsewhere, or runs under several states.

A row is a function of q, k, v and x [4,4,4,4], and why its site is left alone, or FREE.
"""

import pytest
import torch
from torch.nn import functional as F

from formwright.compiler import Reason

from .law import FREE, assert_expected, assert_lawful, four

READ = Reason.OTHER_READERS
softmax = F.softmax


def scores(q, k):
    return q @ k.transpose(-1, -2) / 2


def attend(q, k, v, x=None):
    return softmax(scores(q, k) if x is None else scores(q, k) + x, -1) @ v


# Each writes to the scores s, with x at hand; what softmax reads is s.
EDITS = {
    "a column": lambda s, x: s[..., 0].zero_(),
    "a head": lambda s, x: s[:, 1].mul_(2),
    "the turned": lambda s, x: s.transpose(-1, -2).add_(x),
    "the flat": lambda s, x: s.view(-1)[::3].fill_(-1e9),
    "the diagonal": lambda s, x: s.diagonal(dim1=-2, dim2=-1).fill_(-1e9),
    "the whole, scaled": lambda s, x: s.mul_(0.5),
    "the whole, scaled by x": lambda s, x: s.mul_(x),
    "the whole, negated": lambda s, x: s.neg_(),
    "the whole, zero": lambda s, x: s.zero_(),
    "a bias": lambda s, x: s.add_(x),
    "a bias, twice": lambda s, x: s.add_(x).mul_(2).add_(x, alpha=3),
    "a mask": lambda s, x: s.masked_fill_(x > 0, -1e9),
    "a mask that hides nothing": lambda s, x: s.masked_fill_(x > 0, -1),
    "a mask of their own": lambda s, x: s.masked_fill_(s < 0, -1e9),
    "a mask by index": lambda s, x: s.index_fill_(-1, torch.tensor([1, 2]), -1e9),
    "a mask by booleans": lambda s, x: s.__setitem__(x > 0, -1e9),
    "a triangle": lambda s, x: s.tril_(),
    "clamped": lambda s, x: s.clamp_(-1, 1),
    "copied over": lambda s, x: s.copy_(x),
    "a row of x": lambda s, x: s[:, :, 1].copy_(x[:, :, 2]),
    "less their largest": lambda s, x: s.sub_(s.amax(-1, keepdim=True)),
    "written and written back": lambda s, x: s.add_(x).sub_(x),
}


def edited(edit):
    def function(q, k, v, x):
        s = scores(q, k)
        edit(s, x)
        return softmax(s, -1) @ v

    return function


# Each writes to its own copy of one of the operands, after the scores and before the values.
OPERANDS = {
    "queries": lambda q, k, v, x: q.zero_(),
    "a query": lambda q, k, v, x: q[:, :, 1].mul_(2),
    "keys": lambda q, k, v, x: k.mul_(2),
    "keys through a view": lambda q, k, v, x: k.view(-1).add_(1),
    "values": lambda q, k, v, x: v.add_(1),
    "values through a view": lambda q, k, v, x: v.transpose(1, 2)[0].zero_(),
    "bias": lambda q, k, v, x: x.zero_(),
    "a part of the bias": lambda q, k, v, x: x[..., 0].fill_(-1e9),
    "all": lambda q, k, v, x: [t.mul_(2) for t in (q, k, v, x)],
}


def overwritten(write):
    def function(q, k, v, x):
        q, k, v, x = (t * 1 for t in (q, k, v, x))
        s = scores(q, k) + x
        write(q, k, v, x)
        return softmax(s, -1) @ v

    return function


def read_before_the_write(q, k, v, x):
    s = scores(q, k)
    half = s * 0.5
    s[..., 0].zero_()
    return softmax(half, -1) @ v, s


def two_sites(write):
    """What the first site reads, through views that have to be copied, is written before the second
    site reads it."""

    def function(q, k, v, x):
        q, k, v, x = (t.transpose(0, 2).clone() for t in (q, k, v, x))
        q5, k5, v5 = (t.view(2, 2, 4, 4, 4).permute(3, 0, 2, 1, 4) for t in (q, k, v))
        x5 = x.view(2, 2, 4, 4, 4).permute(3, 0, 1, 2, 4)

        def at():
            s = torch.einsum("bxlhd,bxshd->bxhls", q5, k5) + x5
            p = softmax(s.masked_fill(x5.flip(-1) > 1, -1e9), -1)
            return torch.einsum("bxhls,bxshd->bxlhd", p, v5)

        first = at()
        write(q, k, v, x)
        return first - 2 * at()

    return function


def a_mask_made_in_place(q, k, v, x):
    mask = torch.zeros(4, 4, dtype=q.dtype)
    mask[2:] = torch.arange(4, dtype=q.dtype)
    return attend(q, k, v, mask * 2)


def a_mask_of_booleans_made_in_place(q, k, v, x):
    hidden = torch.zeros(4, 4, dtype=torch.bool)
    hidden[2:, 1:3] = True
    return softmax(scores(q, k).masked_fill(hidden.logical_not(), -1e9), -1) @ v


def a_fill_written(q, k, v, x):
    fill = torch.full((), -1e9, dtype=q.dtype)
    wide = fill.expand(4, 4)
    fill.zero_()
    return softmax(torch.where(x > 0, scores(q, k), wide), -1) @ v


def a_scale_written(q, k, v, x):
    scale = torch.full((), 0.5, dtype=q.dtype)
    scale.view(1).fill_(-3)
    return softmax(scores(q, k) * scale, -1) @ v


def into_a_buffer(q, k, v, x):
    """Products written to the same memory."""
    room = torch.empty_like(x)
    with torch.no_grad():
        torch.matmul(q, k.mT, out=room)
        p = softmax(room, -1)
        room.zero_()
        return p @ v + room


WRITES = {
    "read before the write": read_before_the_write,
    "two sites, queries": two_sites(lambda q, k, v, x: q.mul_(-1)),
    "two sites, keys": two_sites(lambda q, k, v, x: k[0].mul_(-1)),
    "two sites, values": two_sites(lambda q, k, v, x: v[1].add_(1)),
    "two sites, bias and mask": two_sites(lambda q, k, v, x: x.neg_()),
    "a mask made in place": a_mask_made_in_place,
    "a mask of booleans": a_mask_of_booleans_made_in_place,
    "a fill": a_fill_written,
    "a scale": a_scale_written,
    "into a buffer": into_a_buffer,
    "result": lambda q, k, v, x: attend(q, k, v).add_(1),
    "result, a part": lambda q, k, v, x: (o := attend(q, k, v), o[..., 0].zero_())[0],
    "result, rectified": lambda q, k, v, x: attend(q, k, v).relu_(),
    "result, merged": lambda q, k, v, x: (
        attend(q, k, v).transpose(1, 2).reshape(4, 4, 16).mul_(x[0, 0, 0, 0])
    ),
}

READERS = {
    "probabilities given out": (lambda q, k, v, x: ((p := softmax(scores(q, k), -1)) @ v, p), READ),
    "probabilities read": (
        lambda q, k, v, x: (p := softmax(scores(q, k), -1)) @ v + p.sum(),
        READ,
    ),
    "probabilities read, frozen": (
        lambda q, k, v, x: (p := softmax(scores(q, k), -1)) @ v + p.detach().amax(-1, keepdim=True),
        READ,
    ),
    "a view of probabilities given out": (
        lambda q, k, v, x: ((p := softmax(scores(q, k), -1)) @ v, p[:, 0]),
        READ,
    ),
    "probabilities read in vain": (
        lambda q, k, v, x: ((p := softmax(scores(q, k), -1)) @ v, p.exp().sum())[0],
        FREE,
    ),
    "size of probabilities": (
        lambda q, k, v, x: (p := softmax(scores(q, k), -1)) @ v * p.shape[-1],
        FREE,
    ),
    "zeros like probabilities": (
        lambda q, k, v, x: (p := softmax(scores(q, k), -1)) @ v + torch.zeros_like(p),
        READ,
    ),
    "scores given out": (lambda q, k, v, x: (softmax(s := scores(q, k), -1) @ v, s), READ),
    "scores read": (lambda q, k, v, x: softmax(s := scores(q, k), -1) @ v + s.mean(), READ),
    "scores read before the scale": (
        lambda q, k, v, x: softmax((s := q @ k.mT) / 2, -1) @ v + s.logsumexp(-1, keepdim=True),
        READ,
    ),
    "scores read in vain": (
        lambda q, k, v, x: (softmax(s := scores(q, k), -1) @ v, s * 2)[0],
        FREE,
    ),
    "a view of the scores read": (
        lambda q, k, v, x: softmax((s := scores(q, k)).mT.mT, -1) @ v + s[..., :1],
        READ,
    ),
    "two softmaxes": (
        lambda q, k, v, x: softmax(s := scores(q, k), -1) @ v + softmax(s, -2) @ v,
        (READ, Reason.OTHER_AXIS),
    ),
    "two that are alike": (lambda q, k, v, x: (attend(q, k, v), attend(q, k, v)), FREE),
    "two that are alike, turned": (
        lambda q, k, v, x: tuple(attend(*(t.mT for t in (q, k, v))) for _ in range(2)),
        FREE,
    ),
    "two that are alike, one written": (
        lambda q, k, v, x: attend(q, k, v).add_(1) - 2 * attend(q, k, v),
        FREE,
    ),
    "result given out turned": (lambda q, k, v, x: attend(q, k, v).transpose(1, 2), FREE),
    "result given out twice": (lambda q, k, v, x: ((o := attend(q, k, v)), o[0], o * 2), FREE),
    "result read by its strides": (
        lambda q, k, v, x: attend(*(t.transpose(1, 2) for t in (q, k, v))).as_strided(
            (4, 4), (9, 2)
        ),
        FREE,
    ),
    "einsum read by its strides": (
        lambda q, k, v, x: torch.einsum(
            "bhls,bshd->blhd", softmax(torch.einsum("blhd,bshd->bhls", q, k), -1), v
        ).as_strided((16, 16), (16, 1)),
        FREE,
    ),
    "einsum viewed": (
        lambda q, k, v, x: (
            torch.einsum("bhls,bshd->blhd", softmax(torch.einsum("blhd,bshd->bhls", q, k), -1), v)
            .transpose(1, 2)
            .view(16, 16)
        ),
        FREE,
    ),
}


def under(state, *, around):
    """Attention with `around` ("scores", "softmax", "values", "bias", "all") under a state."""

    def function(q, k, v, x):
        def at(name, compute):
            if around != name:
                return compute()
            with state():
                return compute()

        def whole():
            s = at("scores", lambda: scores(q, k))
            s = s + at("bias", lambda: x * 2)
            p = at("softmax", lambda: softmax(s, -1))
            return at("values", lambda: p @ v.to(p.dtype))

        return at("all", whole) * x

    return function


STATES = {
    **{
        f"{state.__name__} around {part}": (under(state, around=part), FREE)
        for state in (torch.no_grad, torch.enable_grad)
        for part in ("scores", "softmax", "values", "bias", "all")
    },
    **{
        f"autocast around {part}": (
            under(lambda: torch.autocast("cpu", torch.bfloat16), around=part),
            FREE,
        )
        for part in ("scores", "softmax", "values", "bias", "all")
    },
    "keys frozen": (lambda q, k, v, x: attend(q, k.detach(), v), FREE),
    "scores frozen": (lambda q, k, v, x: softmax(scores(q, k).detach(), -1) @ v, FREE),
    "bias frozen": (lambda q, k, v, x: attend(q, k, v, x.detach()), FREE),
}


HOW = {"train": {}, "infer": {"train": False}, "dynamic": {"dynamic": True}}


@pytest.fixture(params=HOW.values(), ids=HOW)
def report_of(request):
    """Check a function with gradients, without, or with sizes that are symbols; its report."""

    def check(function):
        how = dict(request.param)
        build = four(4, 4, 4, 4, train=how.pop("train", True))
        return assert_lawful(function, build, **how)

    return check


@pytest.mark.parametrize("name", EDITS)
def test_scores_written_in_place(name, report_of):
    report_of(edited(EDITS[name]))


@pytest.mark.parametrize("name", OPERANDS)
def test_operands_written_after_their_use(name, report_of):
    report_of(overwritten(OPERANDS[name]))


@pytest.mark.parametrize("name", WRITES)
def test_other_writes(name, report_of):
    report_of(WRITES[name])


@pytest.mark.parametrize("name", READERS)
def test_other_readers(name, report_of):
    function, expected = READERS[name]
    assert_expected(report_of(function), expected)


@pytest.mark.parametrize("name", STATES)
def test_states_that_change_inside(name):
    function, expected = STATES[name]
    assert_expected(assert_lawful(function, four(4, 4, 4, 4)), expected)
