"""Norm equivalence on third-party models: every LayerNorm that may go goes, and nothing else shows.

Tests look at the report, not at values alone. Next: `test_convert.py` for the same done to modules.
"""

import pytest
import torch

from formwright.compiler import Reason, collect

from .law import assert_same
from .zoo.norms import CASES, made

BY_NAME = {c.name: c for c in CASES}
PASSES = ("shorten_norms", "equate_norms")


def outputs(model, x):
    """The floating-point tensors that a model returns, caches aside."""
    found = model(x)
    values = [found] if isinstance(found, torch.Tensor) else list(found.values())
    return [v for v in values if isinstance(v, torch.Tensor) and v.is_floating_point()]


def compiled_with(compile_eager, model, x, **options):
    torch._dynamo.reset()
    with collect() as report:
        compiled = compile_eager(model, **options)
        got = outputs(compiled, x)
    assert Reason.INTERNAL_ERROR not in {d.code for d in report.declines()}, report.declines()
    return compiled, got, report


def rewritten(report):
    return sum(report.row(name).rewritten for name in PASSES)


IN_FULL = ("gpt2", "vit", "whisper", "gpt_neox")  # the others each norm once, and each mode once
WAYS = [
    pytest.param(case, norm, training, id=f"{'train' if training else 'infer'}-{norm}-{case.name}")
    for at, case in enumerate(CASES)
    for norm in ("rms", "crms")
    for training in (False, True)
    if case.name in IN_FULL or (norm == "rms") ^ training ^ bool(at % 2)
]


@pytest.mark.parametrize(("case", "norm", "training"), WAYS)
def test_a_model_is_as_in_eager(case, norm, training, compile_eager):
    model, x = made(case, torch.float64)
    model.train(training)
    with torch.set_grad_enabled(training):
        want = outputs(model, x)
        _, got, report = compiled_with(compile_eager, model, x, norm=norm)

    assert report.row("raise_norms").rewritten == case.raised
    assert rewritten(report) == case.rewritten
    left = [d for name in PASSES for d in report.row(name).declined]
    assert bool(left) == (case.norms > case.rewritten)
    assert {d.code for d in left} <= {Reason.MEAN_READ, Reason.MEAN_WRITTEN}
    assert_same("output", got, want, 1e-10)
    if training:
        assert_same("gradient", *(gradients(model, v) for v in (got, want)), 1e-10)


def gradients(model, values):
    torch.manual_seed(1)
    loss = sum((v * torch.randn_like(v)).sum() for v in values)
    wanted = [p for p in model.parameters() if p.requires_grad]
    return torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)


@torch.no_grad()
@pytest.mark.parametrize("name", ["gpt2", "vit", "gpt_neox", "dinov2", "llama"])
@pytest.mark.parametrize("norm", ["rms", "crms"])
def test_in_float32(name, norm, compile_eager):
    model, x = made(BY_NAME[name], torch.float32)
    model.eval()
    want = outputs(model, x)
    _, got, report = compiled_with(compile_eager, model, x, norm=norm)

    assert rewritten(report) == BY_NAME[name].rewritten
    assert_same("output", got, want, 1e-5)


@pytest.mark.parametrize("norm", ["rms", "crms"])
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
def test_twenty_steps_of_training(name, optimizer, norm, compile_eager):
    """The same losses and the same parameters as without us."""
    runs = []
    for compiles in (False, True):
        model, x = made(BY_NAME[name], torch.float64)
        steps = getattr(torch.optim, optimizer)(model.parameters(), lr=1e-2)
        torch._dynamo.reset()
        losses = []
        with collect() as report:
            run = compile_eager(model, norm=norm) if compiles else model
            for _ in range(20):
                logits = run(x).logits
                loss = torch.nn.functional.cross_entropy(
                    logits[:, :-1].flatten(0, 1), x[:, 1:].flatten()
                )
                steps.zero_grad()
                loss.backward()
                steps.step()
                losses.append(loss.item())
        runs.append((losses, [p.detach().clone() for p in model.parameters()]))
    (want, theirs), (got, mine) = runs

    assert rewritten(report) == BY_NAME[name].rewritten
    assert want[-1] < want[0]
    torch.testing.assert_close(torch.tensor(got), torch.tensor(want), rtol=1e-8, atol=0)
    assert_same("parameter", mine, theirs, 1e-8 if optimizer == "SGD" else 1e-6)


@torch.no_grad()
@pytest.mark.parametrize("norm", ["rms", "crms"])
def test_one_program_serves_many_lengths(norm, compile_eager):
    model, x = made(BY_NAME["gpt2"], torch.float64)
    model.eval()
    compiled, _, report = compiled_with(compile_eager, model, x, norm=norm, dynamic=True)
    for length in (4, 9, 17):
        longer = torch.randint(3, 90, (3, length))
        assert_same("output", outputs(compiled, longer), outputs(model, longer), 1e-10)

    assert report.graphs == 1
    assert rewritten(report) == BY_NAME["gpt2"].rewritten


@torch.no_grad()
@pytest.mark.parametrize("norm", ["rms", "crms"])
def test_new_weights_are_used(norm, compile_eager):
    model, x = made(BY_NAME["gpt2"], torch.float64)
    model.eval()
    compiled, got, report = compiled_with(compile_eager, model, x, norm=norm)
    assert report.prepared_bytes > 0
    model.load_state_dict({k: v + 0.01 for k, v in model.state_dict().items()})

    want = outputs(model, x)
    assert not torch.allclose(got[0], want[0])
    assert_same("output", outputs(compiled, x), want, 1e-10)


@torch.no_grad()
def test_auto_proves_it_and_leaves_it(compile_eager):
    model, x = made(BY_NAME["vit"], torch.float32)
    _, _, report = compiled_with(compile_eager, model.eval(), x)
    row = report.row("equate_norms")

    assert (row.sites, row.rewritten) == (BY_NAME["vit"].norms, 0)
    assert {d.code for d in row.declined} == {Reason.NOT_WORTH_IT}


@torch.no_grad()
def test_off_does_not_look(compile_eager):
    model, x = made(BY_NAME["llama"], torch.float32)
    _, _, report = compiled_with(compile_eager, model.eval(), x, norm="off")

    assert "norms" not in " ".join(p.name for p in report.passes)


def test_dropout_in_training_is_named(compile_eager):
    model, x = made(BY_NAME["gpt2"], torch.float32, dropout=True)
    _, _, report = compiled_with(compile_eager, model.train(), x, norm="rms")
    row = report.row("equate_norms")

    assert row.rewritten == 0
    assert all("dropout strikes out single numbers" in d.reason for d in row.declined[1:])


@torch.no_grad()
@pytest.mark.parametrize("norm", ["rms", "crms"])
@pytest.mark.parametrize("padding", ["remove", "off"])
def test_with_padding_removed(norm, padding, compile_eager, packs_always):
    """The passes compose: what is packed are the streams without a mean."""
    model, x = made(BY_NAME["gpt2"], torch.float64)
    model.eval()
    mask = torch.ones_like(x)
    mask[0, 6:] = 0
    want = model(x, attention_mask=mask).logits
    torch._dynamo.reset()
    with collect() as report:
        got = compile_eager(model, norm=norm, padding=padding)(x, attention_mask=mask).logits

    assert rewritten(report) == BY_NAME["gpt2"].rewritten
    assert (report.row("remove_padding").rewritten > 0) == (padding == "remove")
    real = mask.bool()
    torch.testing.assert_close(got[real], want[real], rtol=1e-10, atol=1e-10)
