"""The handful of cases that generate code: Inductor behind our passes, its caches and patterns.

Each compilation runs a C++ compiler for many seconds, so several checks share one graph.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
import torch._inductor.config
from torch import nn
from torch.nn import functional as F

from formwright.compiler import collect

pytestmark = pytest.mark.inductor


def relative_error(got, want):
    return ((got - want).abs().max() / want.abs().max()).item()


def look_alikes(q, k, v):
    """What Inductor's own attention patterns take for attention, and is not: all in one graph."""
    p = (0, 2, 1, 3)
    q2, k2, v2 = q.permute(p), k.permute(p), v.permute(p)
    return (
        F.softmax((q2 @ k2.transpose(-1, -2)) / 4, dim=-2) @ v2,
        F.softmax((q2 @ k2.transpose(-1, -2)) / 4, dim=1) @ v2,
        F.softmax(q @ k.transpose(-1, -2) / 4, -2) @ v,
        F.softmax((q2 @ k.permute(0, 2, 3, 1)) / 4, dim=-2) @ v2,
    )


def test_look_alikes_of_attention_are_right():
    """All sizes equal, so that every wrong permutation has a shape that fits."""
    q, k, v = (torch.randn(2, 16, 16, 16, requires_grad=True) for _ in range(3))
    with collect() as report:
        got = torch.compile(look_alikes, backend="formwright")(q, k, v)
    want = look_alikes(q, k, v)

    for g, w in zip(got, want, strict=True):
        assert relative_error(g, w) < 1e-5
    mine = torch.autograd.grad(sum(g.square().sum() for g in got), (q, k, v))
    theirs = torch.autograd.grad(sum(w.square().sum() for w in want), (q, k, v))
    for g, w in zip(mine, theirs, strict=True):
        assert relative_error(g, w) < 1e-4
    assert report.row("fuse_attention").rewritten == 0
    assert report.row("capture").rewritten == 1


@torch._inductor.config.patch(force_disable_caches=True)  # a cached graph counts nothing
def test_other_compilations_keep_their_patterns():
    """The switch is for our graphs only: Inductor alone still fuses what it knows."""
    from torch._dynamo.utils import counters

    def attention(q, k, v):
        return F.softmax(q @ k.transpose(-1, -2) / 4, -1) @ v

    counters.clear()  # of the tests before
    q, k, v = (torch.randn(2, 3, 8, 16) for _ in range(3))
    with torch.no_grad():
        torch.compile(attention, backend="formwright", options={"attention": False})(q, k, v)
        assert counters["inductor"]["fuse_attention"] == 0
        torch._dynamo.reset()
        torch.compile(attention, backend="inductor")(q, k, v)
        assert counters["inductor"]["fuse_attention"] >= 1


def test_bert_with_dynamic_shapes(zoo, tensor_of):
    """Inference: fused, prepared, verified, one graph for several shapes, weights followed."""
    model, (ids,), kwargs = zoo["bert"]()
    model.eval()
    options = {"verify": True}
    compiled = torch.compile(model, backend="formwright", options=options, dynamic=True)
    with torch.no_grad(), collect() as report:
        for shape in [(3, 12), (2, 7)]:
            mask = kwargs["attention_mask"][: shape[0], : shape[1]].clone()
            args = ids[: shape[0], : shape[1]].clone()
            got = tensor_of(compiled(args, attention_mask=mask))
            assert relative_error(got, tensor_of(model(args, attention_mask=mask))) < 2e-5
        model.encoder.layer[0].output.dense.weight.mul_(2)
        got = tensor_of(compiled(ids, **kwargs))
        assert relative_error(got, tensor_of(model(ids, **kwargs))) < 2e-5

    assert report.graphs == 1
    assert report.row("fuse_attention").rewritten == 2
    assert report.row("verify").rewritten == 1


def test_gpt2_trains(zoo, tensor_of):
    model, args, kwargs = zoo["gpt2"]()
    model.train()
    with collect() as report:
        got = tensor_of(torch.compile(model, backend="formwright")(*args, **kwargs))
    want = tensor_of(model(*args, **kwargs))

    assert relative_error(got, want) < 2e-5
    weights = list(model.parameters())
    mine = torch.autograd.grad(got.square().sum(), weights)
    theirs = torch.autograd.grad(want.square().sum(), weights)
    for g, w in zip(mine, theirs, strict=True):
        assert (g - w).abs().max() <= 2e-5 * max(1.0, w.abs().max().item())
    assert report.row("fuse_attention").rewritten == 2


def test_autocast_and_prepared_weights_together():
    """A LoRA merge inside an autocast region that is in the graph, beside one that is outside."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.a, self.b = (
                nn.Parameter(torch.randn(s)) for s in ((8, 8), (2, 8), (8, 2))
            )

        def forward(self, x):
            x = x @ (self.w + self.b @ self.a)
            with torch.autocast("cpu", torch.bfloat16):
                return (x @ (self.w - self.b @ self.a)).float()

    model, x = Model(), torch.randn(3, 8)
    with torch.no_grad(), collect() as report:
        got = torch.compile(model, backend="formwright")(x)
        want = model(x)

    assert relative_error(got, want) < 2e-2
    assert report.row("hoist_weights").rewritten == 1


CACHED = """
import json, torch, sys
from torch import nn
from torch._dynamo.utils import counters
torch.manual_seed(0)
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
    def forward(self, x):
        return x @ (self.a.weight + self.b.weight).exp()
model = Model()
with torch.no_grad():
    x = torch.ones(2, 8)
    y = torch.compile(model, backend="formwright")(x)
    torch.testing.assert_close(y, model(x))
print(json.dumps(counters["aot_autograd"]))
"""


def test_a_second_process_takes_the_code_from_the_disk(tmp_path):
    def run():
        done = subprocess.run(
            [sys.executable, "-c", CACHED],
            capture_output=True,
            text=True,
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
            check=True,
        )
        return json.loads(done.stdout.splitlines()[-1])

    assert run().get("autograd_cache_hit", 0) == 0
    assert run()["autograd_cache_hit"] == 1


def test_options_and_mode_reach_inductor(monkeypatch):
    import torch._inductor.compile_fx as module

    seen = []
    monkeypatch.setattr(
        module, "compile_fx", lambda g, x, config_patches: seen.append(config_patches) or g
    )
    model, x = nn.Linear(2, 2), torch.ones(1, 2)
    options = {"target_options": {"epilogue_fusion": False}}
    torch.compile(model, backend="formwright", options=options)(x)
    torch._dynamo.reset()
    torch.compile(model, backend="formwright", mode="max-autotune-no-cudagraphs")(x)

    assert seen[0]["epilogue_fusion"] is False
    assert seen[1]["max_autotune"] is True


def test_one_variant_serves_all_masks_and_sizes():
    """Masks that hide a row too, in training."""

    def attention(q, k, v, mask):
        return F.softmax(q @ k.transpose(-1, -2) * 0.3 + mask, -1) @ v

    compiled = torch.compile(attention, backend="formwright", dynamic=True)
    with collect() as report:
        for length, hidden in [(6, False), (6, True), (9, True), (9, False)]:
            q, k, v = (torch.randn(2, 3, length, 8, requires_grad=True) for _ in range(3))
            mask = torch.zeros(length, length)
            mask[1] = -1e9 if hidden else 0.0
            got, want = compiled(q, k, v, mask), attention(q, k, v, mask)
            assert relative_error(got, want) < 1e-5
            mine = torch.autograd.grad(got.square().sum(), (q, k, v))
            theirs = torch.autograd.grad(want.square().sum(), (q, k, v))
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)

    assert [(v.name, v.state) for v in report.variants] == [("general", "compiled")]
