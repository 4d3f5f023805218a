"""The operator for packed sequences against its definition, and against attention with a mask."""

import pytest
import torch

from formwright.compiler.operators import token_rows, varlen_attention
from formwright.compiler.operators.attention_formula import Terms, attend
from formwright.compiler.operators.sequences import Packing
from formwright.compiler.operators.varlen_attention import attend_packed

B, L, H, G, K = 4, 150, 4, 2, 8

KEEPS = {
    "right": lambda at: at < torch.tensor([L, 40, 1, 0])[:, None],
    "left": lambda at: at >= L - torch.tensor([3, L, 77, 0])[:, None],
    "holes": lambda at: torch.rand(B, L) > 0.4,
    "none": lambda at: torch.zeros(B, L, dtype=torch.bool),
    "full": lambda at: torch.ones(B, L, dtype=torch.bool),
}
# name -> (query place, key place) within the packed sequence -> visible
SEES = {
    "all": None,
    "causal": lambda i, j: j <= i,
    "window": lambda i, j: (j <= i) & (j > i - 20),
    "the first keys": lambda i, j: (j < 20) & (i == i),
}
BIASES = {"none": None, "one": (1, H, L, L), "per sequence": (B, 1, L, L), "keys": (1, 1, 1, L)}


def pack(keep, sees):
    rows, sequence, position, starts = token_rows(keep)
    seen = None
    if sees is not None:
        place = torch.arange(len(rows)) - starts[sequence]
        count = keep.sum(1)
        seen = torch.zeros(len(rows), 2, dtype=torch.int32)
        for t in range(len(rows)):
            visible = sees(place[t], torch.arange(int(count[sequence[t]]))).nonzero()
            seen[t] = torch.tensor([int(visible[0]), int(visible[-1]) + 1])
    return rows, Packing(starts, starts, position, position, seen)


def padded_mask(keep, sees):
    rank = keep.cumsum(1) - 1
    mask = keep[:, None, None, :].expand(B, 1, L, L)
    if sees is not None:
        mask = mask & sees(rank[:, None, :, None], rank[:, None, None, :])
    return mask


@pytest.mark.parametrize("bias_name", BIASES)
@pytest.mark.parametrize("sees_name", SEES)
@pytest.mark.parametrize("keep_name", KEEPS)
def test_packed_is_padded_attention_of_the_real_tokens(keep_name, sees_name, bias_name):
    torch.manual_seed(0)
    keep, sees = KEEPS[keep_name](torch.arange(L)), SEES[sees_name]
    rows, packing = pack(keep, sees)
    size = BIASES[bias_name]
    padded = [torch.randn(B, L, n, K, dtype=torch.float64) for n in (H, G, G)]
    bias = None if size is None else torch.randn(size, dtype=torch.float64, requires_grad=True)
    packed = [x.flatten(0, 1)[rows].requires_grad_() for x in padded]
    out, _ = varlen_attention(*packed, *packing_args(packing), bias, 0.3)
    named = attend_packed(*packed, packing, bias, 0.3)
    terms = Terms(bias, padded_mask(keep, sees), 0.3, float("-inf"))
    with torch.no_grad():
        want = attend(*(x.transpose(1, 2) for x in padded), terms).transpose(1, 2)
    want = want.flatten(0, 1)[rows]
    assert torch.allclose(out, want, rtol=0, atol=1e-12)
    assert torch.allclose(named, want, rtol=0, atol=1e-12)
    sources = [*packed, *([bias] if bias is not None else [])]
    g = torch.randn_like(out)
    got, expected = (
        torch.autograd.grad(x, sources, g, materialize_grads=True) for x in (out, named)
    )
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-10)


def packing_args(packing):
    return (
        packing.q_starts,
        packing.k_starts,
        packing.q_position,
        packing.k_position,
        packing.seen,
    )


def test_values_may_be_wider_and_biases_large():
    rows, packing = pack(KEEPS["right"](torch.arange(L)), SEES["causal"])
    q, k, v = (
        torch.randn(len(rows), n, w, requires_grad=True) for n, w in ((4, 8), (2, 8), (2, 5))
    )
    bias = torch.randn(1, H, L, L) * 500
    got, want = (
        varlen_attention(q, k, v, *packing_args(packing), bias, 0.3)[0],
        attend_packed(q, k, v, packing, bias, 0.3),
    )
    assert torch.allclose(got, want, atol=1e-5)
    g = torch.randn_like(got)
    for a, b in zip(
        torch.autograd.grad(got, (q, k, v), g), torch.autograd.grad(want, (q, k, v), g), strict=True
    ):
        assert torch.allclose(a, b, atol=2e-4)


def test_second_derivatives_and_the_rules_of_custom_operators():
    keep = torch.tensor([[True, True, False], [False, True, True]])
    rows, sequence, position, starts = token_rows(keep)
    assert rows.tolist() == [0, 1, 4, 5]
    assert sequence.tolist() == [0, 0, 1, 1]
    assert position.tolist() == [0, 1, 1, 2]
    assert starts.tolist() == [0, 2, 4]
    places = (starts, starts, position, position, None, None)
    inputs = [torch.randn(4, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    op = lambda q, k, v: varlen_attention(q, k, v, *places, 0.5)[0]  # noqa: E731
    assert torch.autograd.gradgradcheck(op, inputs)
    torch.library.opcheck(varlen_attention, (*inputs, *places, 0.5))
    torch.library.opcheck(token_rows, (keep,))
