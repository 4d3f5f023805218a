"""What Inductor's own attention patterns could take for attention, and attention that we rewrite:
lowered by Inductor, with gradients or without, all is as in eager in float32.

Each compilation runs a C++ compiler for many seconds, so many rows are one graph. All sizes are
equal, so that every wrong permutation has a shape that fits. See `test_attention_lookalikes.py`.
"""

import pytest
import torch
from torch.nn import functional as F

from formwright.compiler import collect
from formwright.compiler.testing import FAILURES

from .law import assert_same, four, run

pytestmark = pytest.mark.inductor

INF = float("inf")
softmax, where = F.softmax, torch.where


def turned(*tensors):
    """[B,L,H,K] as [B,H,L,K], as Inductor's patterns have them."""
    return [t.permute(0, 2, 1, 3) for t in tensors]


def attend(q, k, v, edit=lambda s: s / 4, axis=-1):
    return softmax(edit(q @ k.transpose(-2, -1)), axis) @ v


def triangle(n=16):
    return torch.ones(n, n, dtype=torch.bool).tril()


# Functions of q, k, v and x [2,16,16,16].
NO_ATTENTION = {
    "over the queries": lambda q, k, v, x: attend(q, k, v, axis=-2),
    "over the heads": lambda q, k, v, x: attend(q, k, v, axis=1),
    "permuted, over the queries": lambda q, k, v, x: attend(*turned(q, k, v), axis=-2),
    "permuted, over the heads": lambda q, k, v, x: attend(*turned(q, k, v), axis=1),
    "masked, over the queries": lambda q, k, v, x: attend(q, k, v, lambda s: s / 4 + x, -2),
    "filled, over the queries": lambda q, k, v, x: attend(
        q, k, v, lambda s: s.masked_fill(x > 1, -INF), -2
    ),
    "probabilities turned": lambda q, k, v, x: attend(q, k, torch.eye(16)).mT @ v,
    "scaled per score": lambda q, k, v, x: attend(q, k, v, lambda s: s * x),
    "gated": lambda q, k, v, x: (softmax(q @ k.mT / 4, -1) * x) @ v,
    "soft cap": lambda q, k, v, x: attend(q, k, v, lambda s: 3 * (s / 3).tanh()),
    "hidden a little": lambda q, k, v, x: attend(q, k, v, lambda s: s.masked_fill(x > 0, -2.0)),
    "hidden by themselves": lambda q, k, v, x: attend(
        q, k, v, lambda s: s.masked_fill(s < 0, -INF)
    ),
    "lifted": lambda q, k, v, x: attend(q, k, v, lambda s: s.masked_fill(x > 1.5, 1e4)),
    "given out": lambda q, k, v, x: (p := softmax(q @ k.mT / 4, -1)) @ v + p,
}
MAYBE = {
    "keys permuted once": lambda q, k, v, x: (
        softmax(turned(q)[0] @ k.permute(0, 2, 3, 1) / 4, -1) @ turned(v)[0]
    ),
    "heads as queries": lambda q, k, v, x: softmax((q @ k.mT / 4).transpose(1, 2), -1) @ v,
    "values turned": lambda q, k, v, x: attend(q, k, v.mT),
    "keys not turned": lambda q, k, v, x: softmax(q @ k / 4, -1) @ v,
    "scaled per key": lambda q, k, v, x: attend(q, k, v, lambda s: s / (1 + x[..., :1, :].abs())),
    "scaled per query": lambda q, k, v, x: attend(q, k, v, lambda s: s * x[..., :1]),
    "negative scale": lambda q, k, v, x: attend(q, k, v, lambda s: s * -0.25),
    "arms swapped": lambda q, k, v, x: attend(q, k, v, lambda s: where(x > 0, -INF, s)),
    "by another's triangle": lambda q, k, v, x: attend(
        q, k, v, lambda s: (s + triangle().float()).masked_fill(~triangle().mT, -1e9)
    ),
}
ATTENTION = {
    "plain": lambda q, k, v, x: attend(q, k, v),
    "permuted": lambda q, k, v, x: attend(*turned(q, k, v)).permute(0, 2, 1, 3),
    "scaled before": lambda q, k, v, x: attend(q / 4, k, v, lambda s: s),
    "bias": lambda q, k, v, x: attend(q, k, v, lambda s: s / 4 + x),
    "bias of one head": lambda q, k, v, x: attend(q, k, v, lambda s: s + x[:, :1]),
    "hidden rows, NaN": lambda q, k, v, x: attend(
        q, k, v, lambda s: s.masked_fill(x[..., :1] > 1, -INF)
    ),
    "hidden rows, uniform": lambda q, k, v, x: attend(
        q, k, v, lambda s: where((x > 0).view(2, 16, 16, 16).expand_as(s), s, -1e9)
    ),
    "causal": lambda q, k, v, x: attend(q, k, v, lambda s: s.masked_fill(~triangle(), -INF)),
    "by einsum": lambda q, k, v, x: torch.einsum(
        "bhls,bshd->blhd", softmax(torch.einsum("blhd,bshd->bhls", q, k) / 4, -1), v
    ),
    "grouped": lambda q, k, v, x: attend(q, *(t[:, :4].repeat_interleave(4, 1) for t in (k, v))),
    "by bmm": lambda q, k, v, x: torch.bmm(
        softmax(torch.baddbmm(x[0], q[0], k[0].mT, beta=0.5, alpha=0.25), -1), v[0]
    ),
    "narrow values": lambda q, k, v, x: attend(q, k, v[..., :5]),
}


def all_of(tables):
    """One function that calls all rows of some tables."""
    rows = [function for table in tables for function in table.values()]
    return lambda q, k, v, x: tuple(function(q, k, v, x) for function in rows)


@pytest.mark.parametrize("train", [True, False], ids=["train", "infer"])
def test_look_alikes_are_right(train):
    """Every second row with gradients, the others without: the code of all compiles too long."""
    tables = [dict(list(t.items())[not train :: 2]) for t in (NO_ATTENTION, MAYBE, ATTENTION)]
    function = all_of(tables)
    build = four(2, 16, 16, 16, train=train, dtype=torch.float32)
    with collect() as report:
        got = run(torch.compile(function, backend="formwright"), build)
    want = run(function, build)

    assert_same("output", got.outputs, want.outputs, 1e-5)
    assert_same("gradient", got.gradients, want.gradients, 1e-4)
    row, (_, maybe, always) = report.row("fuse_attention"), map(len, tables)
    assert row.sites == sum(map(len, tables))
    assert always <= row.rewritten <= always + maybe, row.declined
    assert not FAILURES & {d.code for d in report.declines()}
    assert report.row("capture").rewritten == report.graphs == 1
