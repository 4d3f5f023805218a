"""The product in one quick file: start here to see whether anything works at all."""

import torch
from torch import nn
from torch.nn import functional as F

import formwright


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, 2, d // 2).permute(2, 0, 3, 1, 4).unbind(0)
        p = F.softmax(q @ k.transpose(-1, -2) / 8**0.5, dim=-1)
        return (p @ v).transpose(1, 2).reshape(b, t, d)


def test_compile_and_explain():
    model, x = Tiny().eval(), torch.randn(2, 6, 16)
    compiled = torch.compile(model, backend="formwright", options={"target": "eager"})
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))
        report = formwright.explain(model, x)

    assert report.row("fuse_attention").rewritten == 1
    assert "fuse_attention" in str(report)
