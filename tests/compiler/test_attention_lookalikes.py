"""What looks like attention: other axes, layouts, products, scales, masks. Each is right.

A row is a function of q, k, v [B,H,N,N] and a further tensor x of that size, with all sizes equal,
so that every wrong axis has a shape that fits. Beside it stands why the site is left alone, NO_SITE
where the pass sees none, or FREE where rewriting is legal: rewritten or not, the answer is right.
"""

import pytest
import torch
from torch.nn import functional as F

from formwright.compiler import Reason

from .law import FREE, NO_SITE, assert_expected, assert_lawful, four, look_alikes

softmax, einsum = F.softmax, torch.einsum


def scores(q, k):
    return q @ k.transpose(-1, -2) / 2


def attend(q, k, v):
    return softmax(scores(q, k), -1) @ v


def swapped(*tensors):
    """[B,L,H,K] as [B,H,L,K]."""
    return [t.permute(0, 2, 1, 3) for t in tensors]


def over(axis, q, k, v):
    return softmax(scores(q, k), axis) @ v


def over_bmm(axis, q, k, v):
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    return torch.bmm(softmax(torch.bmm(q, k.mT), axis), v)


def over_einsum(axis, q, k, v):
    """Queries, heads and keys of [B,L,H,K], no view anywhere."""
    p = softmax(einsum("blhd,bshd->bhls", q, k), axis)
    return einsum("bhls,bshd->blhd", p, v)


def over_permuted_keys(axis, q, k, v):
    """The keys permuted once: [B,L,H,K] to [B,H,K,L] in one go."""
    q2, v2 = swapped(q, v)
    return softmax(q2 @ k.permute(0, 2, 3, 1) / 4, axis) @ v2


AXES = {
    "queries": (lambda q, k, v, x: over(-2, q, k, v), Reason.OTHER_AXIS),
    "heads": (lambda q, k, v, x: over(1, q, k, v), Reason.OTHER_AXIS),
    "batch": (lambda q, k, v, x: over(0, q, k, v), Reason.OTHER_AXIS),
    "queries, permuted": (lambda q, k, v, x: over(-2, *swapped(q, k, v)), Reason.OTHER_AXIS),
    "heads, permuted": (lambda q, k, v, x: over(1, *swapped(q, k, v)), Reason.OTHER_AXIS),
    "queries, keys once": (lambda q, k, v, x: over_permuted_keys(-2, q, k, v), Reason.OTHER_AXIS),
    "heads, keys once": (lambda q, k, v, x: over_permuted_keys(1, q, k, v), Reason.OTHER_AXIS),
    "keys, keys once": (lambda q, k, v, x: over_permuted_keys(-1, q, k, v), FREE),
    "queries, bmm": (lambda q, k, v, x: over_bmm(1, q, k, v), Reason.OTHER_AXIS),
    "batch, bmm": (lambda q, k, v, x: over_bmm(0, q, k, v), Reason.OTHER_AXIS),
    "queries, einsum": (lambda q, k, v, x: over_einsum(2, q, k, v), Reason.OTHER_AXIS),
    "heads, einsum": (lambda q, k, v, x: over_einsum(1, q, k, v), Reason.OTHER_AXIS),
    "keys, scores turned": (
        lambda q, k, v, x: softmax(scores(q, k).mT, -2).mT @ v,
        FREE,
    ),
    "queries, scores turned": (
        lambda q, k, v, x: softmax(scores(q, k).mT, -1).mT @ v,
        Reason.OTHER_AXIS,
    ),
    "queries and keys at once": (
        lambda q, k, v, x: softmax(scores(q, k).flatten(-2), -1).view_as(q) @ v,
        Reason.OTHER_AXIS,
    ),
    "heads and keys at once": (
        lambda q, k, v, x: (
            softmax(scores(q, k).transpose(1, 2).flatten(2), -1).view_as(q).transpose(1, 2) @ v
        ),
        Reason.OTHER_AXIS,
    ),
    "heads and keys, as the sum is": (
        lambda q, k, v, x: einsum(
            "blhs,bhsd->bld",
            softmax(scores(q, k).transpose(1, 2).flatten(2), -1).view_as(q),
            v,
        ),
        FREE,
    ),
}

PRODUCTS = {
    "probabilities turned": (
        lambda q, k, v, x: softmax(scores(q, k), -1).mT @ v,
        Reason.OTHER_AXIS,
    ),
    "sum over the queries": (
        lambda q, k, v, x: einsum("bhqk,bhqd->bhkd", softmax(scores(q, k), -1), v),
        Reason.OTHER_AXIS,
    ),
    "heads and queries swapped": (
        lambda q, k, v, x: softmax(scores(q, k).transpose(1, 2), -1) @ v,
        FREE,  # what is a head to the values is a query to the keys
    ),
    "probabilities on the right": (
        lambda q, k, v, x: v @ softmax(scores(q, k), -1),
        Reason.OTHER_AXIS,
    ),
    "probabilities on the right, turned": (
        lambda q, k, v, x: v @ softmax(scores(q, k), -1).mT,
        FREE,
    ),
    "values turned": (lambda q, k, v, x: attend(q, k, v.mT), FREE),
    "keys not turned": (lambda q, k, v, x: softmax(q @ k, -1) @ v, FREE),
    "queries turned": (lambda q, k, v, x: softmax(q.mT @ k, -1) @ v, FREE),
    "keys are the values": (lambda q, k, v, x: attend(q, k, k), FREE),
    "all one": (lambda q, k, v, x: attend(q, q, q), FREE),
    "probabilities are the values": (
        lambda q, k, v, x: (p := softmax(scores(q, k), -1)) @ p,
        (Reason.NOT_A_PRODUCT, Reason.OTHER_READERS),
    ),
    "two values": (
        lambda q, k, v, x: (p := softmax(scores(q, k), -1)) @ v + p @ k,
        Reason.OTHER_READERS,
    ),
    "values per query": (
        lambda q, k, v, x: einsum("bhqk,qkd->bhqd", softmax(scores(q, k), -1), v[0]),
        FREE,  # each query is a head with keys and values of its own
    ),
    "values and values per query": (
        lambda q, k, v, x: (p := softmax(scores(q, k), -1)) @ v + einsum("bhqk,qkd->bhqd", p, x[0]),
        Reason.OTHER_READERS,
    ),
    "keys per query": (
        lambda q, k, v, x: softmax(einsum("bhqd,bqkd->bhqk", q, k), -1) @ v,
        FREE,
    ),
    "keys and values per query": (
        lambda q, k, v, x: einsum(
            "bhqk,bqkd->bhqd", softmax(einsum("bhqd,bqkd->bhqk", q, k), -1), v
        ),
        FREE,  # the heads are queries
    ),
    "index twice": (
        lambda q, k, v, x: softmax(einsum("bhqd,bhdd->bhqd", q, k), -1) @ v,
        Reason.NOT_A_PRODUCT,
    ),
    "diagonal of the heads": (
        lambda q, k, v, x: softmax(einsum("bhqd,hhkd->bhqk", q, k), -1) @ v,
        Reason.NOT_A_PRODUCT,
    ),
    "summed on its own": (
        lambda q, k, v, x: softmax(einsum("bhqd,bhke->bhqk", q, k), -1) @ v,
        Reason.NOT_A_PRODUCT,
    ),
    "heads summed": (
        lambda q, k, v, x: einsum("bhqk,bhkd->bqd", softmax(scores(q, k), -1), v),
        Reason.OTHER_AXIS,
    ),
    "axes left to einsum": (
        lambda q, k, v, x: softmax(einsum("bhqd,bhkd", q, k), -1) @ v,
        Reason.NOT_A_PRODUCT,
    ),
    "ellipsis": (
        lambda q, k, v, x: einsum(
            "...qk,...kd->...qd", softmax(einsum("...qd,...kd->...qk", q, k), -1), v
        ),
        FREE,
    ),
    "axes out of order": (
        lambda q, k, v, x: einsum(
            "kbqh,hbkd->dqbh", softmax(einsum("bhqd,kbhd->kbqh", q, k), 0), v
        ),
        FREE,
    ),
    "out of order, over the queries": (
        lambda q, k, v, x: einsum(
            "kbqh,hbkd->dqbh", softmax(einsum("bhqd,kbhd->kbqh", q, k), 2), v
        ),
        Reason.OTHER_AXIS,
    ),
    "three factors": (
        lambda q, k, v, x: softmax(einsum("bhqd,bhkd,bhqk->bhqk", q, k, x), -1) @ v,
        Reason.NOT_A_PRODUCT,
    ),
    "three factors behind": (
        lambda q, k, v, x: einsum("bhqk,bhkd,bhqk->bhqd", softmax(scores(q, k), -1), v, x),
        Reason.NOT_A_PRODUCT,
    ),
    "one query batch": (lambda q, k, v, x: attend(q[:1], k, v), FREE),
    "one key batch": (lambda q, k, v, x: attend(q, k[:1], v), FREE),
    "one value batch": (lambda q, k, v, x: attend(q, k, v[:1]), FREE),
    "many value batches": (lambda q, k, v, x: attend(q[:1], k[:1], v), FREE),
    "one key head": (lambda q, k, v, x: attend(q, k[:, :1], v[:, :1]), FREE),
    "one query head": (lambda q, k, v, x: attend(q[:, :1], k, v), FREE),
    "values with an axis more": (
        lambda q, k, v, x: attend(q, k, torch.stack([v, x])),
        FREE,
    ),
    "queries with an axis more": (lambda q, k, v, x: attend(torch.stack([q, x]), k, v), FREE),
    "values without batch": (lambda q, k, v, x: attend(q, k, v[0, 0]), FREE),
    "one query, no axis": (lambda q, k, v, x: attend(q[0, 0, 0], k, v), FREE),
    "one value, no axis": (lambda q, k, v, x: softmax(scores(q, k), -1) @ v[0, 0, 0], FREE),
    "matrices": (lambda q, k, v, x: attend(q[0, 0], k[0, 0], v[0, 0]), FREE),
    "baddbmm": (
        lambda q, k, v, x: torch.bmm(
            softmax(torch.baddbmm(x[0], q[0], k[0].mT, beta=0.5, alpha=2), -1), v[0]
        ),
        FREE,
    ),
    "baddbmm that reads nothing": (
        lambda q, k, v, x: torch.bmm(
            softmax(torch.baddbmm(x[0].detach() / 0, q[0], k[0].mT, beta=0), -1), v[0]
        ),
        FREE,
    ),
    "baddbmm, negative": (
        lambda q, k, v, x: torch.bmm(
            softmax(torch.baddbmm(x[0], q[0], k[0].mT, beta=-1, alpha=-2), -1), v[0]
        ),
        FREE,
    ),
    "added to the result": (
        lambda q, k, v, x: torch.baddbmm(x[0], softmax(q[0] @ k[0].mT, -1), v[0]),
        FREE,
    ),
    "a layer of features": (lambda q, k, v, x: softmax(q @ x[0, 0], -1) @ v[0, 0], FREE),
    "linear attention": (lambda q, k, v, x: softmax(q, -1) @ (softmax(k, -2).mT @ v), NO_SITE),
    "sigmoid": (lambda q, k, v, x: torch.sigmoid(scores(q, k)) @ v, NO_SITE),
    "log-softmax": (lambda q, k, v, x: F.log_softmax(scores(q, k), -1) @ v, NO_SITE),
    "by hand": (
        lambda q, k, v, x: (e := scores(q, k).exp()) / e.sum(-1, keepdim=True) @ v,
        NO_SITE,
    ),
}


TABLES = {"axes": AXES, "products": PRODUCTS}


ROWS = {f"{table}: {name}": row for table, rows in TABLES.items() for name, row in rows.items()}


test_look_alikes_are_right = look_alikes(ROWS)


@pytest.mark.parametrize("name", AXES)
def test_axes_are_told_apart_by_more_than_their_size(name):
    function, expected = AXES[name]
    assert_expected(assert_lawful(function, four(2, 16, 16, 16)), expected)
