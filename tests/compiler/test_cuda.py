"""On a GPU: models are as in eager there, and rewritten as on the CPU, but for what is made for it.

Skipped where there is no GPU. Next: `test_models.py`, the same laws on the CPU.
"""

import pytest
import torch

from formwright.compiler import Reason, collect

from .law import assert_same
from .zoo.norms import CASES, made

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

TOLERANCE = {
    torch.float64: 1e-10,
    torch.float32: 2e-5,
    torch.bfloat16: 5e-2,
    torch.float16: 1e-2,
}
ON_BOTH = ("fuse_attention", "equate_norms", "shorten_norms", "raise_norms", "demand_tokens")


def moved(value, device="cuda", dtype=None):
    """Tensors within, at a device; those of floats as a dtype."""
    if isinstance(value, dict):
        return {key: moved(each, device, dtype) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [moved(each, device, dtype) for each in value]
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(device, dtype if value.is_floating_point() else None)


def tolerance(model, dtype):
    """Some models compute a part in float32 whatever they are in."""
    narrow = getattr(getattr(model, "config", None), "model_type", "") in ("llama", "vit", "gemma2")
    return 2e-6 if narrow and dtype is torch.float64 else TOLERANCE[dtype]


def relative_error(got, want):
    return ((got - want).abs().max() / want.abs().max()).item()


def there(built, dtype):
    """A model and what it is called with, on the GPU."""
    model, args, kwargs = built
    return model.eval().to("cuda", dtype), moved(args, dtype=dtype), moved(kwargs, dtype=dtype)


def rewritten(report):
    return {name: report.row(name).rewritten for name in ON_BOTH}


def assert_attention(report):
    """Each of two sites is rewritten, or has a mask, of which no call can be asked on a GPU."""
    row = report.row("fuse_attention")
    assert row.rewritten + len(row.declined) == row.sites
    assert {d.code for d in row.declined} <= {Reason.MASK_NOT_PROVEN, Reason.DTYPES}, row.declined


@torch.no_grad()
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_inference_equals_eager(zoo_model, compile_eager, tensor_of, dtype, dynamic):
    model, args, kwargs = there(zoo_model, dtype)
    with collect() as report:
        got = tensor_of(compile_eager(model, dynamic=dynamic, fullgraph=True)(*args, **kwargs))
    want = tensor_of(model(*args, **kwargs))

    assert (got.dtype, got.device) == (want.dtype, want.device)
    assert relative_error(got, want) <= tolerance(model, dtype)
    assert_attention(report)
    assert Reason.INTERNAL_ERROR not in {d.code for d in report.declines()}, report.declines()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_training_equals_eager(zoo_model, compile_eager, tensor_of, dtype):
    model, args, kwargs = there(zoo_model, dtype)
    model.train()
    wanted = [p for p in model.parameters() if p.requires_grad]

    def gradients(output):
        torch.manual_seed(1)
        loss = (output * torch.randn_like(output)).sum()
        return torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)

    with collect() as report:
        got = tensor_of(compile_eager(model)(*args, **kwargs))
    want = tensor_of(model(*args, **kwargs))

    assert relative_error(got, want) <= tolerance(model, dtype)
    assert_same("gradient", gradients(got), gradients(want), tolerance(model, dtype))
    assert_attention(report)


@torch.no_grad()
def test_every_model_is_rewritten_as_on_the_cpu(entry, compile_eager, tensor_of):
    model, args, kwargs = entry.build()
    with collect() as here:
        compile_eager(model.eval())(*args, **kwargs)
    torch._dynamo.reset()
    model, args, kwargs = there((model, args, kwargs), torch.float32)
    with collect() as report:
        got = tensor_of(compile_eager(model)(*args, **kwargs))
    want = tensor_of(model(*args, **kwargs))

    assert relative_error(got, want) <= TOLERANCE[torch.float32]
    found, on_cpu = rewritten(report), rewritten(here)
    masked = {d.code for d in report.row("fuse_attention").declined} >= {Reason.MASK_NOT_PROVEN}
    assert found.pop("fuse_attention") == on_cpu.pop("fuse_attention") or masked
    assert found == on_cpu
    assert Reason.INTERNAL_ERROR not in {d.code for d in report.declines()}, report.declines()


@pytest.mark.parametrize("norm", ["rms", "crms"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_norms_are_equated(case, norm, compile_eager):
    model, x = made(case, torch.float64)
    model, x = model.eval().cuda(), moved(x)

    def outputs(called):
        found = called(x)
        values = [found] if isinstance(found, torch.Tensor) else list(found.values())
        return [v for v in values if isinstance(v, torch.Tensor) and v.is_floating_point()]

    with torch.no_grad(), collect() as report:
        got = outputs(compile_eager(model, norm=norm))
    with torch.no_grad():
        assert_same("output", got, outputs(model), tolerance(model, torch.float64))
    found = rewritten(report)
    assert found["shorten_norms"] + found["equate_norms"] == case.rewritten


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_equals_eager(zoo_model, compile_eager, tensor_of, dtype):
    model, args, kwargs = there(zoo_model, torch.float32)
    with torch.no_grad(), torch.autocast("cuda", dtype), collect() as report:
        got = tensor_of(compile_eager(model)(*args, **kwargs))
        want = tensor_of(model(*args, **kwargs))

    assert got.dtype == want.dtype
    assert relative_error(got.float(), want.float()) <= TOLERANCE[dtype]
    assert report.row("capture").rewritten == report.graphs >= 1


@torch.no_grad()
def test_padding_stays(zoo, compile_eager, tensor_of):
    model, (ids,), _ = zoo["bert"]()
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    model, (ids,), kwargs = there((model, (ids,), {"attention_mask": mask}), torch.float32)
    with collect() as report:
        got = tensor_of(compile_eager(model, padding="remove")(ids, **kwargs))
    want = tensor_of(model(ids, **kwargs))

    assert report.row("remove_padding").rewritten == 0
    assert relative_error(got, want) <= TOLERANCE[torch.float32]


@pytest.mark.inductor
@pytest.mark.parametrize("target_options", [{}, {"triton.cudagraphs": True}], ids=["", "graphs"])
def test_triton_code_and_weights_that_change(zoo, tensor_of, target_options):
    """Prepared weights follow what a training step makes of them, in a CUDA graph too."""
    model, args, kwargs = there(zoo["llama"](), torch.float32)
    options = {"target_options": target_options}
    compiled = torch.compile(model, backend="formwright", options=options)
    for _ in range(4):
        with torch.no_grad(), collect() as report:
            got = tensor_of(compiled(*args, **kwargs)).clone()
            want = tensor_of(model(*args, **kwargs))
        assert relative_error(got, want) <= 1e-4
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight), alpha=0.01)
    assert not {Reason.INTERNAL_ERROR, Reason.TARGET_FAILED} & {d.code for d in report.declines()}


@pytest.mark.inductor
def test_triton_code_trains(zoo, tensor_of):
    model, args, kwargs = there(zoo["gpt2"](), torch.float32)
    compiled = torch.compile(model.train(), backend="formwright")
    found = []
    for called in (compiled, model):
        torch.manual_seed(0)
        model.zero_grad()
        tensor_of(called(*args, **kwargs)).square().mean().backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert_same("gradient", *found, 1e-4)
