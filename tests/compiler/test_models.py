"""Real models through the whole backend: equal to eager, and really taken (see the report)."""

import pytest
import torch
import transformers

from formwright.compiler import collect

# What the first fused-attention pass makes of each model: (rewritten, declined).
ATTENTION_SITES = {
    "bert": (2, 0),
    "gpt2": (2, 0),
    "llama": (2, 0),
    "vit": (2, 0),
    "encoder": (2, 0),
}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 5e-2}


def relative_error(got, want):
    return ((got - want).abs().max() / want.abs().max()).item()


def gradients(model, output):
    weight = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).to(output).view_as(output)
    wanted = [p for p in model.parameters() if p.requires_grad]
    return torch.autograd.grad((output * weight).sum(), wanted, allow_unused=True)


def floats_to(inputs, dtype):
    if isinstance(inputs, dict):
        return {k: floats_to([v], dtype)[0] for k, v in inputs.items()}
    return [x.to(dtype) if x.is_floating_point() else x for x in inputs]


@pytest.mark.parametrize("name", ATTENTION_SITES)
def test_attention_sites_are_found_and_rewritten(zoo, compile_eager, name):
    model, args, kwargs = zoo[name]()

    with torch.no_grad(), collect() as report:
        compile_eager(model.eval())(*args, **kwargs)

    row = report.row("fuse_attention")
    assert (row.rewritten, len(row.declined)) == ATTENTION_SITES[name], row.declined
    assert report.row("capture").rewritten == report.graphs == 1


# each dtype, and shapes of both kinds; not each with each
INFERENCE = [
    (torch.float64, False),
    (torch.float64, True),
    (torch.float32, False),
    (torch.bfloat16, True),
]


@pytest.mark.parametrize(("dtype", "dynamic"), INFERENCE)
def test_inference_equals_eager(zoo_model, compile_eager, tensor_of, dtype, dynamic):
    model, args, kwargs = zoo_model
    model = model.to(dtype)
    args, kwargs = floats_to(args, dtype), floats_to(kwargs, dtype)

    with torch.no_grad(), collect() as report:
        got = tensor_of(compile_eager(model, dynamic=dynamic, fullgraph=True)(*args, **kwargs))
        want = tensor_of(model(*args, **kwargs))

    assert got.dtype == want.dtype == dtype
    assert relative_error(got, want) <= TOLERANCE[dtype]
    assert report.row("capture").rewritten == report.graphs >= 1
    assert not report.row("capture").declined


@pytest.mark.parametrize(
    ("dtype", "dynamic"), [(torch.float64, False), (torch.float64, True), (torch.float32, True)]
)
def test_training_equals_eager(zoo_model, compile_eager, tensor_of, dtype, dynamic):
    model, args, kwargs = zoo_model
    model = model.train().to(dtype)
    args, kwargs = floats_to(args, dtype), floats_to(kwargs, dtype)

    with collect() as report:
        got = tensor_of(compile_eager(model, dynamic=dynamic)(*args, **kwargs))
    want = tensor_of(model(*args, **kwargs))

    assert relative_error(got, want) <= TOLERANCE[dtype]
    for g, w in zip(gradients(model, got), gradients(model, want), strict=True):
        assert (g is None) == (w is None)
        assert g is None or (g - w).abs().max() <= TOLERANCE[dtype] * max(1.0, w.abs().max())
    assert report.row("capture").rewritten == report.graphs >= 1


def test_one_dynamic_graph_serves_many_shapes(compile_eager, zoo, tensor_of):
    model, _, _ = zoo["bert"]()
    model.eval()
    compiled = compile_eager(model, dynamic=True)
    with torch.no_grad(), collect() as report:
        for b, t in [(2, 7), (3, 11), (5, 4), (2, 30)]:
            ids = torch.randint(1, 90, (b, t))
            mask = torch.ones(b, t, dtype=torch.long)
            mask[0, t // 2 :] = 0
            got = tensor_of(compiled(ids, attention_mask=mask))
            want = tensor_of(model(ids, attention_mask=mask))
            assert relative_error(got, want) <= 2e-5

    assert report.graphs == 1
    assert report.row("fuse_attention").rewritten == 2


def test_a_fully_masked_row_is_as_in_eager(compile_eager, zoo, tensor_of):
    model, (ids,), kwargs = zoo["bert"]()
    kwargs["attention_mask"][1] = 0
    with torch.no_grad(), collect() as report:
        got = tensor_of(compile_eager(model.eval())(ids, **kwargs))
        want = tensor_of(model(ids, **kwargs))

    assert report.row("fuse_attention").rewritten == 2
    assert relative_error(got, want) <= 2e-5


@pytest.mark.parametrize("where", ["ambient", "in the graph"])
def test_autocast_equals_eager(zoo_model, compile_eager, tensor_of, where):
    model, args, kwargs = zoo_model

    class InGraph(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *args, **kwargs):
            with torch.autocast("cpu", torch.bfloat16):
                return tensor_of(self.model(*args, **kwargs))

    wrapped = InGraph() if where == "in the graph" else model
    compiled = compile_eager(wrapped)
    ambient = torch.autocast("cpu", torch.bfloat16, enabled=where == "ambient")
    with torch.no_grad(), collect() as report, ambient:
        got = tensor_of(compiled(*args, **kwargs))
        want = tensor_of(wrapped(*args, **kwargs))

    assert got.dtype == want.dtype
    assert relative_error(got.float(), want.float()) <= 5e-2
    assert report.row("capture").rewritten == report.graphs >= 1


def test_gpt2_with_a_cache_equals_eager(compile_eager, zoo):
    model, (ids,), _ = zoo["gpt2"]()
    model.eval()
    model.config.use_cache = True
    compiled = compile_eager(model)
    with torch.no_grad(), collect() as report:
        mine, theirs = None, None
        for step in range(4):
            tokens = ids if step == 0 else ids[:, :1]
            mine = compiled(tokens, past_key_values=mine and mine.past_key_values)
            theirs = model(tokens, past_key_values=theirs and theirs.past_key_values)
            assert relative_error(mine.last_hidden_state, theirs.last_hidden_state) <= 2e-5

    assert report.row("capture").rewritten == report.graphs >= 2


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generate_gives_the_same_tokens(cache, zoo, compile_eager):
    base, (ids,), kwargs = zoo["llama"]()
    base.config.use_cache = True
    model = transformers.LlamaForCausalLM(base.config).eval()
    arguments = {
        "attention_mask": kwargs["attention_mask"].flip(1),
        "max_new_tokens": 5,
        "do_sample": False,
        "cache_implementation": cache,
        "pad_token_id": 0,
        "disable_compile": True,
    }
    want = model.generate(ids, **arguments)
    forward = model.forward
    model.forward = compile_eager(forward)
    with collect() as report:
        got = model.generate(ids, **arguments)

    assert torch.equal(got, want)
    assert report.row("capture").rewritten == report.graphs >= 1


def test_training_under_autocast_equals_eager(zoo_model, compile_eager, tensor_of):
    """Both are rounded to bfloat16 at the same places or more finely, so they agree as closely as
    each agrees with float32."""
    model, args, kwargs = zoo_model
    model.train()
    with torch.autocast("cpu", torch.bfloat16), collect() as report:
        got = tensor_of(compile_eager(model)(*args, **kwargs))
        want = tensor_of(model(*args, **kwargs))
    exact = tensor_of(model(*args, **kwargs))

    assert got.dtype == want.dtype
    weights = [p for p in model.parameters() if p.requires_grad]
    mine, theirs, true = (
        torch.cat([g.flatten() for g in gradients(model, out) if g is not None])
        for out in (got, want, exact)
    )
    assert len(mine) <= sum(w.numel() for w in weights)
    assert (mine - true).norm() <= 2 * (theirs - true).norm() + 1e-3 * true.norm()
    assert report.row("capture").rewritten == report.graphs


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_gradient_checkpointing_of_real_models(name, zoo, tensor_of):
    model, args, kwargs = zoo[name]()
    model.train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    options = {"target": "aot_eager_decomp_partition"}
    with collect() as report:
        got = tensor_of(
            torch.compile(model, backend="formwright", options=options)(*args, **kwargs)
        )
    want = tensor_of(model(*args, **kwargs))

    assert relative_error(got, want) <= 2e-5
    for g, w in zip(gradients(model, got), gradients(model, want), strict=True):
        assert w is None or (g - w).abs().max() <= 2e-5 * max(1.0, w.abs().max())
    assert report.row("capture").rewritten == report.graphs >= 1
    assert report.row("fuse_attention").rewritten == 2
