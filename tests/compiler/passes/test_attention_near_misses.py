"""What looks like attention and must be left alone, each with its reason."""

import pytest
import torch
from torch.nn import functional as F

from formwright.compiler import Reason
from formwright.compiler.passes.attention import fuse_attention
from formwright.compiler.testing import assert_declines, capture_call, run_pass

B, H, L, S, K = 2, 3, 5, 5, 8


def qkv():
    return tuple(torch.randn(B, H, n, K) for n in (L, S, S))


def other_axis(q, k, v):
    return F.softmax(q @ k.transpose(-1, -2), dim=-2) @ v


def head_axis(q, k, v):
    return F.softmax(q @ k.transpose(-1, -2), dim=1) @ v


def probabilities_returned(q, k, v):
    p = F.softmax(q @ k.transpose(-1, -2), dim=-1)
    return p @ v, p


def scores_read(q, k, v):
    s = q @ k.transpose(-1, -2)
    return F.softmax(s * 0.5, dim=-1) @ v + s.sum()


def negative_scale(q, k, v):
    return F.softmax(q @ k.transpose(-1, -2) * -0.5, dim=-1) @ v


def soft_cap(q, k, v):
    return F.softmax(torch.tanh(q @ k.transpose(-1, -2)) * 5, dim=-1) @ v


def a_row_that_is_hidden(q, k, v):
    seen = torch.ones(L, S, dtype=torch.bool).tril(-1)
    mask = torch.zeros(L, S, dtype=q.dtype).masked_fill(~seen, float("-inf"))
    return F.softmax(q @ k.transpose(-1, -2) + mask, dim=-1) @ v


def a_mask_written_through_a_view(q, k, v):
    mask = torch.zeros(L, S, dtype=q.dtype)
    mask[2:4] = float("-inf")
    return F.softmax(q @ k.transpose(-1, -2) + mask, dim=-1) @ v


def a_scale_written_through_a_view(q, k, v):
    scale = torch.full((), 0.5)
    scale.view(1).fill_(3.0)
    return F.softmax(q @ k.transpose(-1, -2) * scale, dim=-1) @ v


def a_number_divided_by_scores(q, k, v):
    return F.softmax(2.0 / (q @ k.transpose(-1, -2)), dim=-1) @ v


def scores_edited_in_place(q, k, v):
    s = q @ k.transpose(-1, -2)
    s[..., 0] = 0
    return F.softmax(s, dim=-1) @ v


def values_edited_in_place(q, k, v):
    v = v * 1
    p = F.softmax(q @ k.transpose(-1, -2), dim=-1)
    v.add_(1)
    return p @ v


def query_edited_in_place(q, k, v):
    q = q * 1
    s = q @ k.transpose(-1, -2)
    q.zero_()
    return F.softmax(s, dim=-1) @ v


def probabilities_on_the_right(q, k, v):
    return v.transpose(-1, -2) @ F.softmax(q @ k.transpose(-1, -2), dim=-1)


def narrow_probabilities(q, k, v):
    p = F.softmax(q @ k.transpose(-1, -2), dim=-1).to(torch.bfloat16).to(q.dtype)
    return p @ v


NEAR_MISSES = {
    other_axis: Reason.OTHER_AXIS,
    head_axis: Reason.OTHER_AXIS,
    probabilities_returned: Reason.OTHER_READERS,
    scores_read: Reason.OTHER_READERS,
    negative_scale: Reason.SCALE_NOT_CONSTANT,
    soft_cap: Reason.UNKNOWN_OP,
    a_row_that_is_hidden: Reason.MASK_NOT_PROVEN,
    a_mask_written_through_a_view: Reason.MASK_NOT_PROVEN,
    a_scale_written_through_a_view: Reason.MUTATED,
    a_number_divided_by_scores: Reason.UNKNOWN_OP,
    scores_edited_in_place: Reason.OTHER_READERS,
    values_edited_in_place: Reason.MUTATED,
    query_edited_in_place: Reason.MUTATED,
    probabilities_on_the_right: Reason.OTHER_AXIS,
    narrow_probabilities: Reason.DTYPES,
}


@pytest.mark.parametrize("before", NEAR_MISSES, ids=lambda f: f.__name__)
def test_near_misses_stay_and_say_why(before):
    assert_declines(fuse_attention, before, *qkv(), code=NEAR_MISSES[before])


def test_a_softmax_without_products_is_no_site():
    def before(x):
        return F.softmax(x @ x.transpose(-1, -2), dim=-1)

    captured, _ = capture_call(before, torch.randn(2, 4, 4))

    assert run_pass(fuse_attention, captured.module).sites == 0
