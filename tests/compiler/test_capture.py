"""Capture: what comes out is the dialect, with the metadata that passes rely on."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from formwright.compiler.facts import Facts
from formwright.compiler.graph import fake, op_name, source, to_text, where
from formwright.compiler.testing import capture_call


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.GELU())

    def forward(self, x):
        return F.dropout(F.softmax(self.inner(self.norm(x)), -1), 0.1, self.training)


def calls(captured):
    return [n for n in captured.module.graph.nodes if n.op == "call_function"]


def test_operators_are_whole():
    captured, _ = capture_call(Block(), torch.randn(2, 8))

    names = [op_name(n) for n in calls(captured)]
    assert names == ["layer_norm.default", "linear.default", "gelu.default", "softmax.int",
                     "dropout.default"]  # fmt: skip


def test_nodes_say_where_they_come_from():
    captured, _ = capture_call(Block(), torch.randn(2, 8))

    by_name = {op_name(n): n for n in calls(captured)}
    assert where(by_name["layer_norm.default"]) == "norm"
    assert where(by_name["linear.default"]) == "inner.0"
    assert source(by_name["softmax.int"]).rsplit("/", 1)[-1].startswith("test_capture.py:")


def test_inputs_keep_their_names_and_weights_are_marked():
    captured, _ = capture_call(nn.Linear(4, 4), torch.randn(2, 4))

    placeholders = captured.module.graph.find_nodes(op="placeholder")
    marks = {n.name.rsplit("_parameters_", 1)[-1]: n.meta["weight"] for n in placeholders}
    assert marks == {"weight_": True, "bias_": True, "l_args_0_": False}


def test_the_graph_is_the_same_each_time():
    model, x = Block(), torch.randn(2, 8)

    texts = {to_text(capture_call(model, x)[0].module.graph) for _ in range(2)}
    assert len(texts) == 1


def test_autocast_regions_give_values_their_dtypes():
    linear = nn.Linear(8, 8)

    def function(x):
        with torch.autocast("cpu", torch.bfloat16):
            y = linear(x)
            with torch.autocast("cpu", enabled=False):
                z = linear(x)
        return y, z

    captured, _ = capture_call(function, torch.randn(2, 8))
    facts = Facts(captured.module.graph)
    first, second = [n for n in calls(captured) if op_name(n) == "linear.default"]

    assert (fake(first).dtype, fake(second).dtype) == (torch.bfloat16, torch.float32)
    assert facts.autocast_dtype(first) == torch.bfloat16
    assert facts.autocast_dtype(second) is None
    assert not torch.is_autocast_enabled("cpu")


def test_a_failed_capture_leaves_no_autocast_behind(monkeypatch, compile_eager):
    import sys

    capture_module = sys.modules["formwright.compiler.capture"]
    linear = nn.Linear(8, 8)

    def function(x):
        with torch.autocast("cpu", torch.bfloat16):
            return linear(x).float()

    original = capture_module._Interpreter.call_function

    def fails(self, target, args, kwargs):
        out = original(self, target, args, kwargs)
        if target is torch._C._nn.linear:
            raise RuntimeError("half way")
        return out

    monkeypatch.setattr(capture_module._Interpreter, "call_function", fails)
    with pytest.warns(UserWarning, match="half way"):
        got = compile_eager(function)(torch.ones(2, 8))

    assert not torch.is_autocast_enabled("cpu")
    torch.testing.assert_close(got, function(torch.ones(2, 8)))


def test_constants_are_real():
    def function(x):
        return x * torch.tensor([1.0, 2.0, 3.0])

    captured, real = capture_call(function, torch.ones(3))

    assert captured.module(*real)[0].tolist() == [1.0, 2.0, 3.0]


def test_hooks_on_saved_tensors_are_not_run_by_the_compiler(compile_eager):
    weight = torch.randn(4, 4, requires_grad=True)
    compiled = compile_eager(lambda x: (x @ weight).sin())
    packed = []
    x = torch.randn(2, 4)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t):
        compiled(x)

    assert all(type(t) in (torch.Tensor, nn.Parameter) for t in packed)
