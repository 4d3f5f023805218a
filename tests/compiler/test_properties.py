"""Random programs: whatever is composed of these steps, compiled is as in eager.

Values, strides, gradients, which outputs share memory, and what was written to the inputs.
"""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from formwright.compiler import Options, Report
from formwright.compiler.pipeline import PASSES
from formwright.compiler.testing import FAILURES, compile_with

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)

# One step each: from a [4, 6] tensor to a [4, 6] tensor, or back and forth through other shapes.
STEPS = {
    "view": lambda x: x.reshape(24).view(4, 6),
    "same view": lambda x: x.reshape(4, 6),
    "slice of all": lambda x: x[:, 0:6],
    "transposed twice": lambda x: x.t().contiguous().t(),
    "transposed copy": lambda x: x.t().clone().t(),
    "expand": lambda x: x.expand(4, 6),
    "same dtype": lambda x: x.to(x.dtype),
    "dropout off": lambda x: F.dropout(x, 0.5, training=False),
    "contiguous": lambda x: x.contiguous(),
    "double and back": lambda x: x.double().to(x.dtype),
    "scaled": lambda x: x * 1.5,
    "sine": lambda x: x.sin(),
    "add in place": lambda x: (x * 1).add_(0.5),
    "row in place": lambda x: row_in_place(x * 1),
    "through a view": lambda x: through_a_view((x * 1).contiguous()),
    "dead work": lambda x: (x.exp().sum(), x)[1],
    "no gradient": lambda x: without_gradient(x),
}


def row_in_place(x):
    x[0].mul_(2)
    return x


def through_a_view(x):
    y = x.view(24)
    y.add_(1)
    return x + y.view(4, 6)


def without_gradient(x):
    with torch.no_grad():
        y = x.view(4, 6)
    return x + y


def shared(outputs):
    """Which outputs share memory with which."""
    pointers = [o.untyped_storage().data_ptr() for o in outputs]
    return [[p == q for q in pointers] for p in pointers]


def check(function, inputs, copies, options=None):
    report = Report()
    compiled = compile_with(PASSES, function, report, options=options)
    got, want = compiled(*inputs), function(*copies)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)
        assert g.stride() == w.stride()
        assert g.requires_grad == w.requires_grad
    assert shared(got) == shared(want)
    for a, b in zip(inputs, copies, strict=True):
        torch.testing.assert_close(a, b)
    if any(w.requires_grad for w in want):
        mine, theirs = (
            torch.autograd.grad(
                sum(o.square().sum() for o in out if o.requires_grad), xs, allow_unused=True
            )
            for out, xs in ((got, inputs), (want, copies))
        )
        for g, w in zip(mine, theirs, strict=True):
            assert (g is None) == (w is None)
            if w is not None:
                torch.testing.assert_close(g, w, atol=1e-4, rtol=1e-4)
    assert not FAILURES & {d.code for d in report.declines()}
    return report


@SETTINGS
@given(
    steps=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=6),
    tap=st.integers(0, 6),
    train=st.booleans(),
)
def test_chains_of_views_writes_and_identities(steps, tap, train):
    def function(x):
        tapped = x
        for i, name in enumerate(steps):
            x = STEPS[name](x)
            if i == tap:
                tapped = x
        return x, tapped * 1, tapped

    torch.compiler.reset()
    torch.manual_seed(0)
    x = torch.randn(4, 6, requires_grad=train)
    copy = x.detach().clone().requires_grad_(train)
    check(function, (x,), (copy,))


SCALES = {
    "none": lambda s: s,
    "mul": lambda s: s * 0.3,
    "div": lambda s: s / 3.0,
    "left": lambda s: 0.3 * s,
    "negative": lambda s: s * -0.3,
    "tensor": lambda s: s * s.abs().mean(),
    "twice": lambda s: (s * 0.5) / 2.0,
}
LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "permuted": lambda x: x.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0),
}
TAILS = {
    "plain": lambda o: o,
    "merged": lambda o: o.transpose(1, 2).reshape(2, 5, 24),
    "viewed": lambda o: o.reshape(6, 5, 8),
    "in place": lambda o: o.transpose(1, 2).reshape(2, 5, 24).add_(1),
    "summed": lambda o: o.sum(-1),
}


def mask_of(kind, dtype):
    rows = torch.zeros(2, 1, 5, 5, dtype=dtype)
    return {
        "none": None,
        "open": rows,
        "keys": rows.masked_fill(torch.tensor([False, False, True, True, False]), -1e9),
        "causal": rows.masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf")),
        "hidden row": rows.index_fill(2, torch.tensor([2]), -1e9),
        "lost row": rows.index_fill(2, torch.tensor([2]), float("-inf")),
        "narrow": rows[:, :, :1, :],
    }[kind]


@SETTINGS
@given(
    scale=st.sampled_from(sorted(SCALES)),
    layout=st.sampled_from(sorted(LAYOUTS)),
    tail=st.sampled_from(sorted(TAILS)),
    mask=st.sampled_from(["none", "open", "keys", "causal", "hidden row", "lost row", "narrow"]),
    axis=st.sampled_from([-1, 3, -1, 3, -2, 1]),
    mask_first=st.booleans(),
    probabilities_out=st.sampled_from([False, False, False, True]),
    train=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_spellings_of_attention(
    scale, layout, tail, mask, axis, mask_first, probabilities_out, train, dtype
):
    """Rewritten or not, the answer and the gradients are those of the spelling."""
    bias = mask_of(mask, dtype)

    def function(q, k, v):
        q, k, v = (LAYOUTS[layout](x) for x in (q, k, v))
        s = q @ k.transpose(-1, -2)
        if bias is not None and mask_first:
            s = SCALES[scale](s + bias)
        else:
            s = SCALES[scale](s)
            s = s if bias is None else bias + s
        p = F.softmax(s, dim=axis)
        out = TAILS[tail](p @ v)
        return (out, p) if probabilities_out else (out,)

    torch.compiler.reset()
    torch.manual_seed(0)
    inputs = tuple(torch.randn(2, 3, 5, 8, dtype=dtype, requires_grad=train) for _ in range(3))
    copies = tuple(x.detach().clone().requires_grad_(train) for x in inputs)
    report = Report()
    compiled = compile_with(PASSES, function, report, options=Options(target="eager"))
    got, want = compiled(*inputs), function(*copies)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, equal_nan=True, atol=1e-4, rtol=1e-4)
        assert g.stride() == w.stride()
    if train:
        mine = torch.autograd.grad(sum(g.square().sum() for g in got), inputs)
        theirs = torch.autograd.grad(sum(w.square().sum() for w in want), copies)
        torch.testing.assert_close(mine, theirs, equal_nan=True, atol=1e-3, rtol=1e-3)
    assert not FAILURES & {d.code for d in report.declines()}
    wrong_axis = axis in (-2, 1)
    if wrong_axis or probabilities_out:
        assert report.row("fuse_attention").rewritten == 0


WEIGHT_STEPS = {
    "sine": lambda w: w.sin(),
    "transposed": lambda w: w.t(),
    "scaled": lambda w: w * 0.5,
    "summed": lambda w: w + w.mean(),
    "normed": lambda w: w / w.norm(dim=0, keepdim=True),
    "row": lambda w: w[:1].expand(4, 4),
}


@SETTINGS
@given(
    steps=st.lists(st.sampled_from(sorted(WEIGHT_STEPS)), max_size=4),
    changes=st.lists(st.sampled_from(["none", "in place", "replaced", "step"]), max_size=4),
)
def test_prepared_weights_follow_every_change(steps, changes):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4))

        def forward(self, x):
            w = self.weight
            for name in steps:
                w = WEIGHT_STEPS[name](w)
            return x @ w

    torch.compiler.reset()
    torch.manual_seed(0)
    model, x = Model(), torch.randn(3, 4)
    compiled = compile_with(PASSES, model, Report())
    with torch.no_grad():
        for change in ("none", *changes):
            if change == "in place":
                model.weight[0].add_(1)
            elif change == "replaced":
                model.weight = nn.Parameter(torch.randn(4, 4))
            elif change == "step":
                model.weight.grad = torch.ones(4, 4)
                torch.optim.SGD([model.weight], lr=0.1, fused=True).step()
            torch.testing.assert_close(compiled(x), model(x))
