"""transform: the passes on an exported program."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from formwright.compiler import UnknownNameError, collect, transform


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(16, 48)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        p = F.dropout(F.softmax(q @ k.transpose(-1, -2) * 0.35, dim=-1), 0.1, self.training)
        return (p @ v).transpose(1, 2).reshape(b, t, 16) * self.scale


def operators(program):
    return [str(n.target) for n in program.graph.nodes if n.op == "call_function"]


@pytest.mark.parametrize("dynamic", [False, True])
def test_an_exported_program_is_rewritten_and_equal(dynamic):
    model, x = Attention().eval(), torch.randn(3, 5, 16)
    shapes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens")},) if dynamic else None
    program = torch.export.export(model, (x,), dynamic_shapes=shapes)
    with collect() as report:
        rewritten = transform(program)

    assert report.row("fuse_attention").rewritten == 1
    assert "aten.scaled_dot_product_attention.default" in operators(rewritten)
    assert "aten.softmax.int" in operators(program)  # the given program is as it was
    torch.testing.assert_close(rewritten.module()(x), model(x))
    if dynamic:
        y = torch.randn(2, 9, 16)
        torch.testing.assert_close(rewritten.module()(y), model(y))


def test_the_result_saves_loads_and_decomposes(tmp_path):
    model, x = Attention().eval(), torch.randn(3, 5, 16)
    rewritten = transform(torch.export.export(model, (x,)))
    torch.export.save(rewritten, tmp_path / "program.pt2")
    loaded = torch.export.load(tmp_path / "program.pt2")

    torch.testing.assert_close(loaded.module()(x), model(x))
    torch.testing.assert_close(rewritten.run_decompositions().module()(x), model(x))


def test_a_real_model(zoo):
    model, (x,), _ = zoo["vit"]()
    program = torch.export.export(model.eval(), (x,))
    with collect() as report:
        rewritten = transform(program)

    assert report.row("fuse_attention").rewritten == 2
    torch.testing.assert_close(rewritten.module()(x)[0], model(x)[0], atol=1e-5, rtol=1e-5)


def test_options_are_checked():
    program = torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),))

    with pytest.raises(UnknownNameError, match="unknown option 'attn'"):
        transform(program, {"attn": True})


def test_norms_of_a_program_stay_operators_of_torch():
    """A program may be used where ours are not installed."""
    model, x = (
        nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 4)),
        torch.ones(2, 16),
    )
    program = transform(torch.export.export(model, (x,)), {"norm": "crms"})

    assert not [name for name in operators(program) if "formwright" in name]
    torch.testing.assert_close(program.module()(x), model(x))
