"""Each rule of a token-wise operator: packed it gives the real rows that it gives padded."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from formwright.compiler import collect

pytestmark = pytest.mark.usefixtures("packs_always")
B, L, D = 3, 6, 8

# what is done to x [B, L, D] between two attentions; it gives [B, L, D] again
CALLS = {
    "linear": lambda x, s: F.linear(x, s.w, s.b),
    "linear without bias": lambda x, s: F.linear(x, s.w),
    "matmul": lambda x, s: x @ s.w,
    "flat product": lambda x, s: torch.addmm(s.b, x.view(-1, D), s.w).view(x.shape),
    "flat mm": lambda x, s: torch.mm(x.reshape(-1, D), s.w).view(B, L, D),
    "layer norm": lambda x, s: F.layer_norm(x, (D,), s.b, s.b),
    "rms norm": lambda x, s: F.rms_norm(x, (D,), s.b),
    "softmax": lambda x, s: x.softmax(-1),
    "log softmax": lambda x, s: x.log_softmax(2),
    "sum kept": lambda x, s: x - x.sum(-1, keepdim=True),
    "mean dropped": lambda x, s: x * x.mean(-1)[..., None],
    "variance": lambda x, s: x / x.var(-1, keepdim=True).add(1).sqrt(),
    "amax": lambda x, s: x - x.amax(-1, keepdim=True),
    "norm": lambda x, s: x / x.norm(dim=-1, keepdim=True),
    "cumsum": lambda x, s: x.cumsum(-1),
    "chunk": lambda x, s: torch.cat(x.chunk(2, -1)[::-1], -1),
    "split": lambda x, s: torch.cat(x.split([3, 5], 2)[::-1], 2),
    "unbind": lambda x, s: x * x.unbind(-1)[2][..., None],
    "select": lambda x, s: x * x.select(-1, 1).unsqueeze(-1),
    "rotate": lambda x, s: torch.cat((-x[..., D // 2 :], x[..., : D // 2]), -1),
    "stack": lambda x, s: torch.stack((x[..., ::2], -x[..., 1::2]), -1).flatten(-2),
    "flip": lambda x, s: x.flip(-1),
    "glu": lambda x, s: F.glu(torch.cat((x, x), -1), -1),
    "maximum and its place": lambda x, s: x * x.max(-1).values[..., None],
    "index along the width": lambda x, s: x[:, :, s.order],
    "index_select": lambda x, s: x.index_select(2, s.order),
    "heads": lambda x, s: (
        x.view(B, L, 2, 4).transpose(1, 2).mul(2).transpose(1, 2).reshape(B, L, D)
    ),
    "heads shared": lambda x, s: x[..., None, :4].expand(B, L, 2, 4).reshape(B, L, D),
    "batch merged with heads": lambda x, s: (
        x.view(B, L, 2, 4)
        .permute(0, 2, 1, 3)
        .reshape(B * 2, L, 4)
        .mul(3)
        .view(B, 2, L, 4)
        .permute(0, 2, 1, 3)
        .flatten(2)
    ),
    "tokens first": lambda x, s: F.linear(x.transpose(0, 1), s.w).transpose(0, 1).contiguous(),
    "tokens last": lambda x, s: (x.mT * s.b[:, None]).mT.contiguous(),
    "squeeze": lambda x, s: x.unsqueeze(2).squeeze(2),
    "per position": lambda x, s: x + s.table[:L],
    "per position, one batch": lambda x, s: x + s.table[None, :L],
    "per sequence": lambda x, s: x + s.start[:, None],
    "per token": lambda x, s: x * s.weight[..., None],
    "embedding": lambda x, s: x + F.embedding(s.ids, s.table),
    "broadcast from heads": lambda x, s: (
        (x.view(B, L, 2, 4).transpose(1, 2) * s.table[:L, :4]).transpose(1, 2).reshape(B, L, D)
    ),
    "casts": lambda x, s: x.float().double().to(x.dtype),
    "where": lambda x, s: torch.where(x > 0, x, -x),
    "masked_fill": lambda x, s: x.masked_fill(x > 1, 1.0),
    "activations": lambda x, s: F.gelu(x) + F.silu(x) + torch.tanh(x).pow(2) + x.sigmoid(),
    "likes": lambda x, s: x + torch.ones_like(x) - torch.zeros_like(x),
}


class Host(nn.Module):
    """Attention, the call, attention."""

    def __init__(self, call):
        super().__init__()
        self.call = call
        self.qkv = nn.Linear(D, 3 * D)
        self.w, self.b = nn.Parameter(torch.randn(D, D)), nn.Parameter(torch.randn(D))
        self.table = nn.Parameter(torch.randn(L + 3, D))
        self.register_buffer("order", torch.tensor([1, 0, 3, 2, 5, 4, 7, 6]))

    def attend(self, x, keep):
        q, k, v = (t.view(B, L, 2, 4).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, keep[:, None, None])
        return mixed.transpose(1, 2).reshape(B, L, D)

    def forward(self, x, keep, start, weight, ids):
        self.start, self.weight, self.ids = start, weight, ids
        return self.attend(self.call(self.attend(x, keep), self), keep)


@pytest.mark.parametrize("name", CALLS)
def test_packed_rows_are_the_padded_ones(name, compile_eager):
    torch.manual_seed(0)
    host = Host(CALLS[name]).double()
    keep = torch.tensor([[1, 1, 0, 1, 0, 0], [1] * 6, [0, 0, 1, 0, 0, 1]], dtype=torch.bool)
    shapes = ((B, L, D), (B, D), (B, L))
    x, start, weight = (torch.randn(s, dtype=torch.float64) for s in shapes)
    given = (x, keep, start, weight, torch.randint(0, L, (B, L)))
    with torch.no_grad(), collect() as report:
        got, want = compile_eager(host, padding="remove")(*given), host(*given)
    assert torch.allclose(got[keep], want[keep], rtol=0, atol=1e-12)
    assert not got[~keep].any()
    row = report.row("remove_padding")
    assert (row.sites, row.rewritten, row.declined) == (2, 2, [])
