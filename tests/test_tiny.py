"""The product in one quick file: start here to see whether anything works at all."""

import torch
from torch import nn
from torch.nn import functional as F

import formwright
from formwright.search import SearchSpec, build, run_search
from formwright.service import Client, local_server

SMALL = SearchSpec(trials=2, steps=2, target="eager")


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


def test_search_and_build():
    result = run_search(SMALL)

    assert len(result.succeeded) == 2
    best = result.best("params")
    assert sum(p.numel() for p in build(best.architecture).parameters()) == best.values["params"]


def test_serve_submit_watch_and_query(tmp_path):
    with local_server(tmp_path / "searches.db", workers=0) as address, Client(address) as client:
        search = client.submit(SMALL)
        events = list(client.watch(search.id))
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert client.best(search.id)
