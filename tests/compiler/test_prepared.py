"""Prepared weights are used while fresh, and no longer: the table of `prepared.py`, row by row."""

import copy
import weakref

import pytest
import torch
from torch import nn

from formwright.compiler import collect, refresh
from formwright.compiler.prepared import PreparedWeights


class Doubled(nn.Module):
    """A model whose inference graph holds nothing but a prepared weight and a product."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        return x @ (self.weight * 2).exp()


def step(optimiser):
    def change(model):
        weight = model.weight
        weight.grad = torch.ones_like(weight)
        optimiser([weight]).step()

    return change


def new_values():
    return torch.linspace(-1, 1, 16).view(4, 4)


def replace_parameter(model):
    model.weight = nn.Parameter(new_values())


def assign_data(model):
    model.weight.data = new_values()


CHANGES = {
    "copy_": lambda m: m.weight.data_ptr() and m.weight.copy_(new_values()),
    "load_state_dict": lambda m: m.load_state_dict({"weight": new_values()}),
    "load_state_dict, assign": lambda m: m.load_state_dict({"weight": new_values()}, assign=True),
    "parameter replaced": replace_parameter,
    "data assigned": assign_data,
    "in place on a view": lambda m: m.weight[0].mul_(3),
    "detached": lambda m: m.weight.detach().mul_(3),
    "nn.init": lambda m: nn.init.ones_(m.weight),
    "SGD": step(lambda p: torch.optim.SGD(p, lr=0.5)),
    "AdamW": step(lambda p: torch.optim.AdamW(p, lr=0.5)),
    "AdamW foreach": step(lambda p: torch.optim.AdamW(p, lr=0.5, foreach=True)),
    "AdamW fused": step(lambda p: torch.optim.AdamW(p, lr=0.5, fused=True)),
    "SGD fused": step(lambda p: torch.optim.SGD(p, lr=0.5, fused=True)),
}
UNSEEN = {
    "data.copy_": lambda m: m.weight.data.copy_(new_values()),
    "data.mul_": lambda m: m.weight.data.mul_(3),
    "numpy": lambda m: m.weight.detach().numpy().fill(0.25),
}


@pytest.fixture
def compiled_and_model(compile_eager):
    model = Doubled()
    with torch.no_grad(), collect() as report:
        compiled = compile_eager(model)
        compiled(torch.eye(4))
    assert [v.name for v in report.variants] == ["prepared"]
    return compiled, model


@torch.no_grad()
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed(compiled_and_model, name):
    compiled, model = compiled_and_model
    before = compiled(torch.eye(4))
    CHANGES[name](model)

    assert not torch.allclose(model(torch.eye(4)), before)
    torch.testing.assert_close(compiled(torch.eye(4)), model(torch.eye(4)))


@torch.no_grad()
@pytest.mark.parametrize("name", UNSEEN)
def test_what_cannot_be_noticed_is_mended_by_refresh(compiled_and_model, name):
    compiled, model = compiled_and_model
    before = compiled(torch.eye(4))
    UNSEEN[name](model)

    torch.testing.assert_close(compiled(torch.eye(4)), before)  # as documented: not seen
    refresh(model)
    torch.testing.assert_close(compiled(torch.eye(4)), model(torch.eye(4)))


@torch.no_grad()
def test_a_training_loop_between_calls(compile_eager):
    model = Doubled()
    compiled = compile_eager(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    for _ in range(3):
        torch.testing.assert_close(compiled(torch.eye(4)), model(torch.eye(4)))
        with torch.enable_grad():
            model(torch.randn(2, 4)).sum().backward()
        optimiser.step()
        optimiser.zero_grad()


@torch.no_grad()
def test_values_are_computed_once_while_nothing_changes():
    graph = torch.fx.symbolic_trace(lambda w: ((w * 2).exp(),))
    prepared = PreparedWeights(graph, [1])
    weight = nn.Parameter(torch.randn(4))
    (first,) = prepared.derive([torch.zeros(1), weight])
    (second,) = prepared.derive([torch.ones(1), weight])

    assert first is second
    weight.add_(1)
    (third,) = prepared.derive([torch.ones(1), weight])
    assert third is not first


def test_inference_tensors_are_not_prepared():
    graph = torch.fx.symbolic_trace(lambda w: ((w * 2).exp(),))
    with torch.inference_mode():
        weight = torch.randn(4)

    assert PreparedWeights(graph, [0]).derive([weight]) is None


def test_a_model_made_in_inference_mode_runs_unprepared(compile_eager):
    with torch.inference_mode():
        model = Doubled()
        with collect() as report:
            compiled = compile_eager(model)
            torch.testing.assert_close(compiled(torch.eye(4)), model(torch.eye(4)))
            model.weight.copy_(new_values())
            torch.testing.assert_close(compiled(torch.eye(4)), model(torch.eye(4)))

    assert "general" in [v.name for v in report.variants]


def test_values_prepared_in_inference_mode_serve_others(compile_eager):
    model = Doubled()
    compiled = compile_eager(model)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(torch.eye(4)), model(torch.eye(4)))
    with torch.no_grad():
        torch.testing.assert_close(compiled(torch.eye(4)), model(torch.eye(4)))


@torch.no_grad()
def test_dead_models_are_let_go_when_another_is_prepared():
    graph = torch.fx.symbolic_trace(lambda w: ((w * 2).exp(),))
    prepared = PreparedWeights(graph, [0])
    dead = [nn.Parameter(torch.randn(4)) for _ in range(3)]
    alive = [nn.Parameter(torch.randn(4)) for _ in range(2)]
    for weight in (*dead, *alive):
        prepared.derive([weight])
    gone = [weakref.ref(w) for w in dead]
    dead.clear()
    del weight
    prepared.derive([nn.Parameter(torch.randn(4))])

    assert [ref() for ref in gone] == [None] * 3
    first = [prepared.derive([w])[0] for w in alive]
    assert all(a is prepared.derive([w])[0] for a, w in zip(first, alive, strict=True))


@torch.no_grad()
def test_one_graph_for_several_layers_keeps_a_snapshot_for_each(compile_eager, monkeypatch):
    layers = nn.ModuleList(Doubled() for _ in range(4))
    compiled = [compile_eager(layer) for layer in layers]
    x = torch.eye(4)
    with collect() as report:
        want = [layer(x) for layer in layers]
        for run, y in zip(compiled, want, strict=True):
            torch.testing.assert_close(run(x), y)
    prepares = []
    original = PreparedWeights._prepare
    monkeypatch.setattr(PreparedWeights, "_prepare", lambda *a: prepares.append(1) or original(*a))
    for _ in range(3):
        for run, y in zip(compiled, want, strict=True):
            torch.testing.assert_close(run(x), y)

    assert report.graphs == 1
    assert not prepares


@torch.no_grad()
def test_weights_can_still_be_swapped(compile_eager):
    model = Doubled()
    compiled = compile_eager(model)
    compiled(torch.eye(4))
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)

    x = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(compiled(x), model(x))


@torch.no_grad()
def test_two_models_of_one_class_do_not_mix(compile_eager):
    first, second = Doubled(), Doubled()
    compiled = compile_eager(first), compile_eager(copy.deepcopy(second))
    for _ in range(2):
        torch.testing.assert_close(compiled[0](torch.eye(4)), first(torch.eye(4)))
        torch.testing.assert_close(compiled[1](torch.eye(4)), second(torch.eye(4)))
