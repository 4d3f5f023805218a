"""Norm passes where an analysis is easily wrong: groups, chains of norms, shared operands, layouts.

Each program goes through all norm passes in their order, as norm="rms" and "crms", and through
lower_norms; what may be rewritten must be, and values and gradients are as before.
"""

import pytest
import torch
from torch.nn import functional as F

from formwright.compiler import Options
from formwright.compiler.passes.equate_norms import equate_norms
from formwright.compiler.passes.fold_norms import fold_norms
from formwright.compiler.passes.lower_norms import lower_norms
from formwright.compiler.passes.raise_norms import raise_norms
from formwright.compiler.passes.shorten_norms import shorten_norms
from formwright.compiler.testing import capture_call, run_pass

from ..streams import EPS, D, N, T, Weights, flat, gradients, inputs, layer, rms


def writer(p, x):
    return F.linear(F.linear(x, p.r1), p.w1, p.c1)


def grouped_convolution(p, x):
    """As in ConvNeXt: the mean over channels is not that of a group."""
    h = F.conv1d(writer(p, x).transpose(1, 2), p.position[:3].t().reshape(D, 1, 3), groups=D)
    return layer(h.transpose(1, 2)) * 2


def chain(p, x):
    return F.linear(layer(layer(x, p.g, p.b) @ p.r1.t() @ p.w1.t(), p.b, p.g), p.r2)


def two_in_a_row(p, x):
    return layer(rms(layer(writer(p, x), p.g, p.b), p.b), p.g, p.b) * 2


def norm_then_blocks(p, x):
    """As in CLIP: the branch begins with a LayerNorm that is a site itself."""
    x = layer(writer(p, x), p.g, p.b)
    x = x + F.linear(F.gelu(F.linear(layer(x, p.b, p.g), p.r2)), p.w2)
    return F.linear(layer(x), p.r1)


def one_linear(p, x):
    """A linear that reads the norm and writes the branch."""
    h = writer(p, x)
    h = h + F.linear(layer(h), p.r1[:D])
    return F.linear(layer(h + F.linear(layer(h), p.r2[:D]) * p.g), p.r1)


def plain_norm_on_its_own_branch(p, x):
    h = writer(p, x)
    return F.linear(layer(h + layer(h)), p.r2)


def split_branch(p, x):
    first, second = writer(p, x).split([2, 3], 1)
    return F.linear(layer(first[:, :2] + second[:, :2]), p.r2), F.linear(layer(second), p.r1)


def scaled_addmm(p, x):
    h = torch.addmm(p.c1, F.linear(x, p.r1).view(-1, N), p.w1.t(), alpha=0.5, beta=2.0)
    return layer((h * p.g).view(-1, T, D)) * 2


def number_along_the_axis(p, x):
    h = writer(p, x)
    return layer(torch.where(h[..., :1] > 0, h, h * -0.5)) * 2


def written_before_the_weight(p, x):
    x = x.detach() * 1
    n = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)
    x.add_(1)
    return n * p.g + x


def written_before_the_product(p, x):
    x = x.detach() * 1
    m = x.pow(2).mean(-1, keepdim=True)
    x[:, 0] = 0
    return x * torch.rsqrt(m + EPS) * p.g


def bias_of_its_own_shape(p, x):
    return layer(torch.addmm(p.position[0, :1], F.linear(x, p.r1).view(-1, N), p.w1.t())) * 2


def turned(p, x):
    h = writer(p, x).transpose(0, 1)
    return layer(h, p.g, p.b), F.linear(layer(h).reshape(-1, D), p.r1)


# program -> LayerNorms that become RMSNorms, and CRMSNorms
CORNERS = {
    grouped_convolution: (0, 0),
    chain: (1, 1),
    two_in_a_row: (1, 1),
    norm_then_blocks: (3, 3),
    one_linear: (3, 3),
    plain_norm_on_its_own_branch: (2, 2),
    split_branch: (2, 2),
    scaled_addmm: (1, 1),
    number_along_the_axis: (0, 0),
    written_before_the_weight: (0, 0),
    written_before_the_product: (0, 0),
    bias_of_its_own_shape: (0, 0),
    turned: (2, 2),
}


@pytest.mark.parametrize("program", CORNERS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("norm", ["rms", "crms"])
def test_values_gradients_and_layouts(program, norm, lowers_always):
    net, options = Weights(program, torch.float64), Options(norm=norm, target="eager")
    captured, real = capture_call(net, inputs(torch.float64))
    want = flat(captured.module(*real))
    leaves = [v for v in real if v.requires_grad]
    theirs = gradients(want, leaves)
    rewritten = {}
    for run in (raise_norms, fold_norms, shorten_norms, equate_norms, lower_norms):
        if run is shorten_norms and norm == "rms":
            continue
        rewritten[run] = run_pass(run, captured.module, options).rewritten
        got = flat(captured.module(*real))
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
        assert [v.stride() for v in got] == [v.stride() for v in want], run
    for g, w in zip(gradients(got, leaves), theirs, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-8, atol=1e-8)

    run = equate_norms if norm == "rms" else shorten_norms
    assert rewritten[run] == CORNERS[program][norm == "crms"]


def test_norms_of_norms_are_lowered(lowers_always):
    """Each reads what the one before has become."""
    captured, _ = capture_call(Weights(two_in_a_row), inputs())

    assert run_pass(lower_norms, captured.module).rewritten == 3
