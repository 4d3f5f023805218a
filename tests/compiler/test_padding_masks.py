"""Padding removal under any mask, for any number of tokens, with one program."""

import functools
import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from formwright.compiler import Reason, collect

pytestmark = pytest.mark.usefixtures("packs_always")
B, L, D, H = 3, 10, 16, 2


class Block(nn.Module):
    """Attention by hand and an MLP; `window` and `causal` say what a query may see."""

    def __init__(self, causal=False, window=L):
        super().__init__()
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.mlp = nn.Sequential(
            nn.LayerNorm(D), nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D)
        )
        self.causal, self.window = causal, window

    def forward(self, x, keep):
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, H, D // H).permute(2, 0, 3, 1, 4)
        at = torch.arange(x.shape[1])
        visible = keep[:, None, None, :] & ((at[:, None] - at).abs() < self.window)
        if self.causal:
            visible = visible & (at <= at[:, None])
        scores = (q @ k.mT / math.sqrt(D // H)).masked_fill(~visible, torch.finfo(x.dtype).min)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        return x + self.mlp(x)


class Net(nn.Module):
    def __init__(self, **how):
        super().__init__()
        self.blocks = nn.ModuleList(Block(**how) for _ in range(2))

    def forward(self, x, keep):
        for block in self.blocks:
            x = block(x, keep)
        return x


KINDS = {
    "all": {},
    "causal": {"causal": True},
    "window": {"window": 3},
    "causal window": {"causal": True, "window": 3},
}


@functools.cache
def made(kind):
    """A model, and the same compiled once for all masks."""
    torch.manual_seed(0)
    net = Net(**KINDS[kind]).double()
    options = {"target": "eager", "padding": "remove"}
    return net, torch.compile(net, backend="formwright", options=options, fullgraph=True)


LONG = int(os.environ.get("FORMWRIGHT_FUZZ", "0"))  # so many, and others each time
masks = st.lists(st.lists(st.booleans(), min_size=L, max_size=L), min_size=B, max_size=B)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=LONG or 40, deadline=None, derandomize=not LONG)
@given(cells=masks)
def test_any_mask(kind, cells):
    net, packed = made(kind)
    keep = torch.tensor(cells)
    x = torch.randn(B, L, D, dtype=torch.float64, requires_grad=True)
    g = torch.randn_like(x) * keep[..., None]
    want, got = net(x, keep), packed(x, keep)
    grads = [torch.autograd.grad(y, [x, *net.parameters()], g) for y in (want, got)]
    # the loss of real tokens does not depend on how the others were computed, or whether
    assert torch.allclose(got[keep], want[keep], rtol=0, atol=1e-10)
    for a, b in zip(*grads, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def test_a_batch_of_one_and_tokens_that_nobody_sees():
    for keep in ([[True, True] + [False] * 8], [[False] * 9 + [True]]):
        torch.compiler.reset()
        net = Net().double()
        mask = torch.tensor(keep)
        x = torch.randn(1, L, D, dtype=torch.float64)
        with torch.no_grad(), collect() as report:
            options = {"target": "eager", "padding": "remove"}
            packed = torch.compile(net, backend="formwright", options=options)
            want, got = net(x, mask), packed(x, mask)
        assert torch.allclose(got[mask], want[mask], rtol=0, atol=1e-10)
        assert not got[~mask].any()
        assert [v.name.split("+")[0] for v in report.variants] == ["packed"]


def test_a_full_batch_and_an_empty_one_run_padded():
    net, packed = Net().double(), None
    torch.compiler.reset()
    options = {"target": "eager", "padding": "remove"}
    packed = torch.compile(net, backend="formwright", options=options)
    x = torch.randn(B, L, D, dtype=torch.float64)
    with torch.no_grad():
        for keep in (torch.ones(B, L, dtype=torch.bool), torch.zeros(B, L, dtype=torch.bool)):
            assert torch.allclose(packed(x, keep), net(x, keep), rtol=0, atol=1e-10)


def test_two_hundred_ragged_batches_are_one_program():
    net = Net().double()
    torch.compiler.reset()
    with torch.no_grad(), collect() as report:
        options = {"target": "eager", "padding": "remove"}
        packed = torch.compile(net, backend="formwright", options=options, dynamic=True)
        draw = torch.Generator().manual_seed(0)
        for _ in range(200):
            batch = int(torch.randint(2, 7, (), generator=draw))
            length = int(torch.randint(8, 13, (), generator=draw))
            lengths = torch.randint(0, length + 1, (batch, 1), generator=draw)
            keep = torch.arange(length) < lengths
            x = torch.randn(batch, length, D, dtype=torch.float64)
            got, want = packed(x, keep), net(x, keep)
            assert torch.allclose(got[keep], want[keep], rtol=0, atol=1e-10)
    assert report.graphs == 1
    assert len(report.variants) <= 2  # packed; and padded, for batches without padding


# --- what is not a mask ---------------------------------------------------------------------------


class Pooled(nn.Module):
    """Reads every token of the first block's result, as `how` says."""

    def __init__(self, how):
        super().__init__()
        self.block, self.how = Block(), how

    def forward(self, x, keep):
        return self.how(self.block(x, keep), keep)


READS_PADDING = {
    "mean": lambda x, keep: x.mean(1),
    "convolution": lambda x, keep: F.conv1d(x.mT, torch.ones(D, 1, 3).double(), groups=D),
    "cumulative sum": lambda x, keep: x.cumsum(1)[:, -1],
    "softmax over tokens": lambda x, keep: (x.softmax(1) * x).sum(1),
    "mask from activations": lambda x, keep: (x * (x.sum(-1, keepdim=True) > 0)).sum(1),
}


@pytest.mark.parametrize("name", READS_PADDING)
def test_what_mixes_tokens_keeps_the_padding(name, compile_eager):
    net = Pooled(READS_PADDING[name]).double()
    keep = torch.arange(L) < torch.tensor([[L], [4], [7]])
    x = torch.randn(B, L, D, dtype=torch.float64)
    with torch.no_grad(), collect() as report:
        got = compile_eager(net, padding="remove")(x, keep)
        assert torch.allclose(got, net(x, keep), rtol=0, atol=1e-10)
    row = report.row("remove_padding")
    assert (row.sites, row.rewritten) == (1, 0)
    assert {d.code for d in row.declined} == {Reason.PADDING_READ}


READS_SOME = {
    "mean": lambda x, keep: (x * keep[..., None]).sum(1) / keep.sum(1, keepdim=True),
    "where": lambda x, keep: torch.where(keep[..., None], x, 0.0).sum(1),
    "maximum": lambda x, keep: x.masked_fill(~keep[..., None], -9.0).amax(1),
    "first": lambda x, keep: x[:, 0],
    "first two": lambda x, keep: x[:, :2].flatten(1),
    "last real": lambda x, keep: x[torch.arange(B), keep.sum(1) - 1],
    "loss": lambda x, keep: F.cross_entropy(
        x.flatten(0, 1), torch.where(keep, 3, -100).flatten(), reduction="sum"
    ),
    "loss, classes second": lambda x, keep: F.cross_entropy(x.mT, torch.where(keep, 3, -100)),
}


@pytest.mark.parametrize("name", READS_SOME)
def test_what_reads_real_tokens_only_is_packed(name, compile_eager):
    net = Pooled(READS_SOME[name]).double()
    keep = torch.arange(L) < torch.tensor([[L - 1], [4], [7]])
    x = torch.randn(B, L, D, dtype=torch.float64)
    with torch.no_grad(), collect() as report:
        got = compile_eager(net)(x, keep)
        assert torch.allclose(got, net(x, keep), rtol=0, atol=1e-10)
    assert report.row("remove_padding").rewritten == 1
    assert [v.name.split("+")[0] for v in report.variants] == ["packed"]


def test_a_named_token_that_is_padding_is_kept(compile_eager):
    """What is read of a padded token is what eager computes there."""
    net = Pooled(lambda x, keep: x[:, 5]).double()
    keep = torch.arange(L) < torch.tensor([[L - 1], [4], [7]])
    x = torch.randn(B, L, D, dtype=torch.float64)
    with torch.no_grad():
        for options in ({}, {"demand": False}):
            torch.compiler.reset()
            got = compile_eager(net, **options)(x, keep)
            assert torch.allclose(got, net(x, keep), rtol=0, atol=1e-10)


def test_small_models_are_not_packed(compile_eager, monkeypatch):
    monkeypatch.undo()  # the cost gate as it is
    net = Net().double()
    keep = torch.arange(L) < torch.tensor([[L], [4], [7]])
    x = torch.randn(B, L, D, dtype=torch.float64)
    with torch.no_grad(), collect() as report:
        assert torch.allclose(compile_eager(net, padding="remove")(x, keep), net(x, keep))
    assert len(report.variants) == 2  # the packed one was made first, and not used
