"""`convert`: models whose LayerNorms are RMSNorms or CRMSNorms for good."""

import copy
import io

import pytest
import torch
from torch import nn

from formwright.compiler import ConversionError, UnknownNameError, convert
from formwright.compiler.conversion import CRMSNorm, RMSNorm

from .law import assert_same
from .streams import centred
from .zoo.norms import CASES, made

BY_NAME = {c.name: c for c in CASES}
TAKEN = [c for c in CASES if c.converts]
REFUSED = [c for c in CASES if not c.converts]
NORM = {"rms": RMSNorm, "crms": CRMSNorm}


def output(model, x):
    found = model(x)
    return found[0]


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


@pytest.mark.parametrize("norm", NORM)
@pytest.mark.parametrize("case", TAKEN, ids=lambda c: c.name)
def test_a_converted_model_computes_the_same(case, norm):
    model, x = made(case, torch.float64)
    model.eval()
    want = output(model, x)
    same = convert(model, norm=norm, example_inputs=(x,))
    norms = [m for m in model.modules() if "Norm" in type(m).__name__]

    assert same is model
    assert not model.training
    assert {type(m) for m in norms} == {NORM[norm]}
    assert_same("output", [output(model, x)], [want], 1e-10)


@pytest.mark.parametrize("norm", NORM)
@pytest.mark.parametrize("case", REFUSED, ids=lambda c: c.name)
def test_a_model_that_is_refused_is_untouched(case, norm):
    model, x = made(case, torch.float32)
    before, modules = state(model), [type(m) for m in model.modules()]
    with pytest.raises(ConversionError, match="LayerNorm"):
        convert(model, norm=norm, example_inputs=(x,))

    assert model.training
    assert [type(m) for m in model.modules()] == modules
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("norm", NORM)
@pytest.mark.parametrize("name", ["gpt2", "dinov2"])
def test_it_trains_saves_and_loads(name, norm):
    model, x = made(BY_NAME[name], torch.float32)
    convert(model.train(), norm=norm, example_inputs=(x,))
    steps = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = output(model, x).square().mean()
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(loss.item())
    assert model.training
    assert losses[-1] < losses[0]

    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh, _ = made(BY_NAME[name], torch.float32)
    convert(fresh, norm=norm, example_inputs=(x,))
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(output(fresh.eval(), x), output(model.eval(), x))
    assert torch.equal(output(copy.deepcopy(model), x), output(model, x))


def test_the_weights_are_rewritten_where_they_are():
    model, x = made(BY_NAME["gpt2"], torch.float32)
    before = {name: p.data_ptr() for name, p in model.named_parameters()}
    convert(model, example_inputs={"input_ids": x})
    after = {name: p.data_ptr() for name, p in model.named_parameters()}

    assert {n for n in after if before.get(n) != after[n]} == {"lm_head.weight"}


def test_a_tied_head_gets_weights_of_its_own():
    model, x = made(BY_NAME["gpt2"], torch.float64)
    table = model.transformer.wte.weight.detach().clone()
    assert model.lm_head.weight is model.transformer.wte.weight
    convert(model, example_inputs=(x,))

    assert model.lm_head.weight is not model.transformer.wte.weight
    assert torch.equal(model.lm_head.weight, table)
    torch.testing.assert_close(model.transformer.wte.weight, centred(table))
    assert not model.config.tie_word_embeddings


@pytest.mark.parametrize("name", ["gpt2", "vit"])
def test_crms_is_smaller(name):
    model, x = made(BY_NAME[name], torch.float32)
    convert(model, norm="crms", example_inputs=(x,))
    widths = {
        p.shape[-1] for n, p in model.named_parameters() if "position_embeddings" in n or "wpe" in n
    }

    assert widths == {31}
    assert all(
        m.in_features == m.weight.shape[1] for m in model.modules() if isinstance(m, nn.Linear)
    )
    assert all(
        m.out_features == m.weight.shape[0] for m in model.modules() if isinstance(m, nn.Linear)
    )


class Fixed(nn.Module):
    """A module whose code insists on the width that it was written for."""

    def __init__(self):
        super().__init__()
        self.write, self.read = nn.Linear(6, 8), nn.Linear(8, 4)
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        return self.read(self.norm(self.write(x).view(-1, 8)))


def test_code_that_insists_on_a_width_is_refused():
    model, x = Fixed(), torch.randn(3, 6)
    before = state(model)
    with pytest.raises(ConversionError, match="narrower"):
        convert(model, norm="crms", example_inputs=(x,))

    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    want = model(x)
    torch.testing.assert_close(convert(model, example_inputs=(x,))(x), want, rtol=1e-5, atol=1e-6)


class Shared(nn.Module):
    """One weight that writes the branch, and is read as it is by something else."""

    def __init__(self):
        super().__init__()
        self.write, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x):
        return self.norm(self.write(x)) + self.write.weight.sum()


class Subclass(nn.LayerNorm):
    pass


class Half(nn.Module):
    """A norm that is called and one that is not."""

    def __init__(self):
        super().__init__()
        self.write, self.norm, self.spare = nn.Linear(8, 8), nn.LayerNorm(8), nn.LayerNorm(8)

    def forward(self, x):
        return self.norm(self.write(x))


class Scaled(nn.Module):
    """Two layer scales behind one linear."""

    def __init__(self):
        super().__init__()
        self.write, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)
        self.first, self.second = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(8))

    def forward(self, x):
        return self.norm(self.write(x) * self.first + self.write(x + 1) * self.second)


class Position(nn.Module):
    """A parameter that is read through a view, by something else too."""

    def __init__(self):
        super().__init__()
        self.write, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)
        self.position = nn.Parameter(torch.rand(3, 8))

    def forward(self, x):
        position = self.position.unsqueeze(0)
        return self.norm(self.write(x) + position), position * 2


class OneMemory(nn.Module):
    """Two parameters in one memory."""

    def __init__(self):
        super().__init__()
        self.write, self.norm, self.other = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 8)
        self.other.weight.data = self.write.weight.data

    def forward(self, x):
        return self.norm(self.write(x))


def hooked():
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))
    model[1].register_forward_hook(lambda module, given, made: made)
    return model


REFUSALS = {
    "which would change": (Position(), torch.randn(3, 8)),
    "shares its memory": (OneMemory(), torch.randn(3, 8)),
    "has hooks": (hooked(), torch.randn(3, 8)),
    "layer scale": (Scaled(), torch.randn(3, 8)),
    "not called": (Half(), torch.randn(3, 8)),
    "also read by": (Shared(), torch.randn(3, 8)),
    "in a Subclass": (nn.Sequential(nn.Linear(8, 8), Subclass(8)), torch.randn(3, 8)),
    "has no LayerNorm": (nn.Linear(8, 8), torch.randn(3, 8)),
}


@pytest.mark.parametrize("words", REFUSALS)
def test_a_refusal_says_why(words):
    model, x = REFUSALS[words]
    with pytest.raises(ConversionError, match=words):
        convert(model, example_inputs=(x,))


def test_a_module_that_is_not_called_keeps_its_weights():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.norm = nn.Embedding(9, 8), nn.LayerNorm(8)
            self.head = nn.Linear(8, 9, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids):
            return self.norm(self.table(ids))

    model, ids = Tied(), torch.arange(5)
    head = model.head.weight.detach().clone()
    convert(model, example_inputs=(ids,))

    assert torch.equal(model.head.weight, head)
    assert not torch.equal(model.table.weight, head)


def test_a_graph_break_is_refused():
    class Breaks(nn.Module):
        def __init__(self):
            super().__init__()
            self.write, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)

        def forward(self, x):
            x = self.write(x)
            torch._dynamo.graph_break()
            return self.norm(x)

    with pytest.raises(ConversionError, match="2 graphs"):
        convert(Breaks(), example_inputs=(torch.randn(2, 8),))


def test_bad_arguments_are_said():
    with pytest.raises(UnknownNameError, match="known: crms, rms"):
        convert(nn.Linear(2, 2), norm="layer", example_inputs=(torch.randn(1, 2),))
    with pytest.raises(ConversionError, match="tuple of arguments"):
        convert(nn.Linear(2, 2), example_inputs=torch.randn(1, 2))
