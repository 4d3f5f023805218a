"""Zero-cost proxies, each against its definition spelled out, and on every kind of block."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from formwright.search import PROXY_NAMES, BlockSpec, build, cost_of
from formwright.search.evaluate.evaluator import evaluate
from formwright.search.evaluate.proxies import PROXIES, Case, Proxy, _reading, proxies
from formwright.search.space.metaformer_staged import STAGED_MIXERS
from formwright.search.tasks import TASKS

from .evaluations import TINY, arch, attention, counting, tokens_arch

DIGITS = TASKS.load("digits")


def case(spec, task):
    """Three examples."""
    torch.manual_seed(4)
    split = task.load()["train"]
    inputs = split.inputs[:3]
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    return Case(spec, build(spec).double().eval(), inputs, split.targets[:3])


CASES = {"images": (arch(), DIGITS), "tokens": (tokens_arch(), counting())}
both = pytest.mark.parametrize("of", CASES.values(), ids=list(CASES))


def matrices(model):
    return {name: p for name, p in model.named_parameters() if p.ndim > 1}


def loss_of(found):
    outputs = found.model(found.inputs)
    logs, targets = (
        outputs.log_softmax(-1).reshape(-1, outputs.shape[-1]),
        found.targets.reshape(-1),
    )
    asked = [-logs[at, target] for at, target in enumerate(targets.tolist()) if target != -100]
    return sum(asked) / len(asked)


@both
def test_grad_norm_and_snip(of):
    found = case(*of)
    loss_of(found).backward()
    norms = [p.grad.pow(2).sum().sqrt().item() for p in matrices(found.model).values()]
    moved = [(p.grad * p).abs().sum().item() for p in matrices(found.model).values()]
    assert PROXIES["grad_norm"].read(case(*of)).item() == pytest.approx(sum(norms))
    assert PROXIES["snip"].read(case(*of)).item() == pytest.approx(sum(moved))


def test_snip_is_how_much_the_loss_moves_without_a_weight():
    found = case(*CASES["images"])
    weight = found.model.head.linear.weight
    (gradient,) = torch.autograd.grad(loss_of(found), weight)
    small = 1e-6
    with torch.no_grad():
        before = loss_of(found)
        weight[2, 3] *= 1 - small
        moved = (loss_of(found) - before) / small
    assert -moved.item() == pytest.approx((gradient[2, 3] * weight[2, 3]).item(), rel=1e-3)


def test_synflow_of_linear_maps_is_the_sum_over_paths():
    """What each layer is given and hands on is the same flow, so each matrix scores all of it."""
    spec = arch(BlockSpec("identity"), layers=0)
    found = case(spec, DIGITS)
    patches, head = found.model.stem.patches, found.model.head.linear
    through = head.weight.abs().sum(0)  # [D]
    first = (patches.weight.abs().sum((1, 2, 3)) * through).sum()
    table = found.model.stem.positions.table.abs()
    added = table.sum(0) + len(table) * (patches.weight.abs().sum((1, 2, 3)) + patches.bias.abs())
    places = (table.mean(0) * through).sum()
    expected = first + places + (added / len(table) * through).sum()
    assert PROXIES["synflow"].read(found).item() == pytest.approx(expected.item())


def test_synflow_leaves_norms_out():
    """With them its score would not depend on how large the weights of the stem are."""
    spec = arch(attention(), layers=2, norm="rms")
    scores = []
    for factor in (1.0, 3.0):
        found = case(spec, DIGITS)
        with torch.no_grad():
            for parameter in found.model.stem.parameters():
                parameter *= factor
        scores.append(PROXIES["synflow"].read(found).item())
    assert scores[1] > 1.5 * scores[0]


@both
def test_jacob_cov(of):
    spec, task = of
    found = case(spec, task)
    rows = []
    for at in range(3):
        one = found.inputs[at : at + 1]
        if one.is_floating_point():
            x = one.clone().requires_grad_()
            said = found.model(x)
        else:
            x = found.model.stem(one).detach().requires_grad_()
            y = x
            for stage in found.model.stages:
                y, _ = stage(y, None)
            said = found.model.head(found.model.norm(y))
        (gradient,) = torch.autograd.grad(said.sum(), x)
        rows.append(gradient.flatten().numpy())
    values = np.linalg.eigvals(np.corrcoef(np.stack(rows))).real
    expected = -np.sum(np.log(values + 1e-5) + 1 / (values + 1e-5))
    assert PROXIES["jacob_cov"].read(found).item() == pytest.approx(expected, rel=1e-6)


def test_the_first_two_are_counted():
    found, cost = proxies(arch(), DIGITS, 0), cost_of(arch())
    assert list(found)[:2] == ["params", "flops"]
    assert (found["params"].value, found["flops"].value) == (cost.params, cost.flops)
    assert set(found) == set(PROXIES)


def test_equal_seeds_give_equal_readings_and_nothing_else_is_drawn():
    before = torch.get_rng_state()
    first = proxies(arch(), DIGITS, 3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    with torch.no_grad():
        assert proxies(arch(), DIGITS, 3) == first
    other = proxies(arch(), DIGITS, 4)
    assert {n for n in first if first[n] == other[n]} == {"params", "flops"}


@pytest.mark.parametrize("norm", ["none", "layer", "crms", "scaled_rms", "prepbn"])
def test_norms_do_not_stop_them(norm):
    settings = {"steps": 3} if norm == "prepbn" else {}
    found = proxies(arch(norm=BlockSpec.of(norm, **settings)), DIGITS, 0)
    assert all(reading.value is not None for reading in found.values()), found


@pytest.mark.parametrize("mixer", STAGED_MIXERS)
def test_mixers_do_not_stop_them(mixer):
    found = proxies(arch(STAGED_MIXERS[mixer](16)), DIGITS, 0)
    assert all(reading.value is not None for reading in found.values()), found


def test_nor_do_causal_ones():
    mamba = BlockSpec.of("mamba2", expand=2, head_width=4, state=4, conv=2, chunk=4)
    found = proxies(tokens_arch(mixer=mamba), counting(), 0)
    assert all(reading.value is not None for reading in found.values()), found


def test_where_there_is_no_score_it_says_why():
    class Still(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.stem, self.stages, self.norm, self.head = (
                inner.stem,
                inner.stages,
                inner.norm,
                inner.head,
            )

        def forward(self, x):
            return x.flatten(1).sum(1, keepdim=True) * torch.ones(10)

    found = case(*CASES["images"])
    still = Case(found.spec, Still(found.model), found.inputs, found.targets)
    reading = _reading(PROXIES["jacob_cov"], still)
    assert reading.value is None
    assert "change alike" in reading.why
    raises = Proxy(lambda case: F.linear(case.inputs, torch.zeros(3, 3)), "nobody")
    assert _reading(raises, found).why.startswith("RuntimeError: ")
    infinite = Proxy(lambda case: torch.tensor(float("inf")), "nobody")
    assert _reading(infinite, found).why == "it is inf"


def test_an_evaluation_keeps_the_proxies_that_are_asked_for():
    asked = replace(TINY, proxies=("snip", "params"))
    plain, found = evaluate(TINY), evaluate(asked)
    read = proxies(TINY.architecture, DIGITS, TINY.seed)

    assert found.details["proxies"] == {name: float(read[name].value) for name in asked.proxies}
    assert found.values == plain.values
    assert "proxies" not in plain.details


def test_the_names_of_proxies_are_known_without_torch():
    assert set(PROXY_NAMES) == set(PROXIES)
