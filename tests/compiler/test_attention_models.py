"""Every model of the zoo through the whole backend: each attention that it spells out is rewritten,
or declined for the reason that its entry names, and values and gradients are those of eager.

Values are compared in float32 and float64, gradients in the widest dtype in which the sites are
rewritten: a softmax taken in float32 would round a float64 model.
"""

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map

from formwright.compiler import Reason, collect

TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}


@pytest.fixture(autouse=True)
def _one_thread():
    """The models are tiny: threads would only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- comparing ----------------------------------------------------------------------------------


def cast(tree, dtype):
    """The tree with its floating-point tensors in another dtype."""

    def one(x):
        is_float = isinstance(x, torch.Tensor) and x.is_floating_point()
        return x.to(dtype) if is_float else x

    return tree_map(one, tree)


def floats(output):
    """Everything in an output that can be compared by its size."""
    found = [x for x in tree_leaves(output) if isinstance(x, torch.Tensor)]
    return [x for x in found if x.is_floating_point()]


def error(got, want):
    """The largest difference of two lists of tensors, relative to the largest magnitude of the
    tensor; where one is NaN the other has to be."""
    worst = 0.0
    for g, w in zip(got, want, strict=True):
        assert g.dtype == w.dtype
        assert g.shape == w.shape
        assert torch.equal(g.isnan(), w.isnan())
        difference = (g - w).nan_to_num(0.0).abs().max().item()
        worst = max(worst, difference / max(w.nan_to_num(0.0).abs().max().item(), 1e-30))
    return worst


def gradients(model, output):
    """Of a sum in which each entry of the output has another weight, over all parameters; those
    that the output does not need are left out."""
    total = 0.0
    for x in floats(output):
        total = total + (torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x) * x).sum()
    wanted = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(total, wanted, allow_unused=True)
    return torch.cat([g.flatten() for g in found if g is not None])


def assert_seen(entry, report, dtype, graphs=1):
    """The report has the sites of the entry, and what became of them is what the entry says."""
    row = report.row("fuse_attention")
    code = entry.expected(dtype)
    opened = 0 if torch.is_grad_enabled() else entry.opened
    assert row.sites == (entry.sites + opened) * graphs, row
    assert row.rewritten == (0 if code else row.sites), row.declined
    assert {d.code for d in row.declined} <= {code}, row.declined
    assert report.row("capture").rewritten == report.graphs == graphs
    assert not [d for d in report.declines() if d.code is Reason.INTERNAL_ERROR]


# --- without dropout ----------------------------------------------------------------------------


def inputs_of(entry, dtype):
    """What the entry is called with: ragged texts, and for a causal one those that are padded on
    the left, so that the first queries see no key. `nano_gpt` has rows of NaN then."""
    for how in ({}, {"left": True}) if entry.causal else ({},):
        yield cast(entry.build(**how)[1:], dtype)


def test_inference_equals_eager(entry, compile_eager):
    model = entry.build()[0].eval()
    compiled = compile_eager(model, fullgraph=True)

    with torch.no_grad(), collect() as report:
        for args, kwargs in inputs_of(entry, torch.float32):
            got, want = compiled(*args, **kwargs), model(*args, **kwargs)
            assert error(floats(got), floats(want)) <= TOLERANCE[torch.float32]
        assert_seen(entry, report, torch.float32)


def check_training(entry, compile_eager, dtype):
    model = entry.build()[0].train().to(dtype)
    compiled = compile_eager(model, fullgraph=True)

    with collect() as report:
        for args, kwargs in inputs_of(entry, dtype):
            got, want = compiled(*args, **kwargs), model(*args, **kwargs)
            assert error(floats(got), floats(want)) <= TOLERANCE[dtype]
            assert error([gradients(model, got)], [gradients(model, want)]) <= TOLERANCE[dtype]

    assert_seen(entry, report, dtype)


def test_training_equals_eager(entry, compile_eager):
    check_training(entry, compile_eager, torch.float32 if entry.in_float32 else torch.float64)


@pytest.mark.parametrize("name", ["bert", "gpt2", "nano_gpt", "grouped"])
def test_training_in_float32_equals_eager(name, entries, compile_eager):
    check_training(entries[name], compile_eager, torch.float32)


@pytest.mark.parametrize("name", ["llama", "relative_in_place"])
def test_a_softmax_in_float32_is_left_alone_in_float64(name, entries, compile_eager):
    check_training(entries[name], compile_eager, torch.float64)


# --- sizes that vary ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "nano_gpt", "three_axes", "bloom"])
def test_one_dynamic_graph_serves_two_sizes(name, entries, compile_eager):
    entry = entries[name]
    model, args, kwargs = entry.build()
    model.eval()
    compiled = compile_eager(model, dynamic=True)

    with torch.no_grad(), collect() as report:
        for batch, length in [(3, 12), (2, 9)]:
            cut = tree_map(lambda x, b=batch, n=length: x[:b, :n].clone(), (args, kwargs))
            got, want = compiled(*cut[0], **cut[1]), model(*cut[0], **cut[1])
            assert error(floats(got), floats(want)) <= TOLERANCE[torch.float32]
        assert_seen(entry, report, torch.float32)


# --- bfloat16 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "llama", "softmax_in_float32", "relative_in_place"])
def test_bfloat16_is_as_close_to_float32_as_eager_is(name, entries, compile_eager):
    entry = entries[name]
    model, args, kwargs = entry.build()
    model.eval()
    with torch.no_grad(), collect() as report:
        exact = floats(model(*args, **kwargs))
        model.bfloat16()
        args, kwargs = cast((args, kwargs), torch.bfloat16)
        got = floats(compile_eager(model, fullgraph=True)(*args, **kwargs))
        want = floats(model(*args, **kwargs))

    assert_seen(entry, report, torch.bfloat16)
    assert [x.dtype for x in got] == [x.dtype for x in want]
    assert error(cast(got, torch.float32), exact) <= 2 * error(cast(want, torch.float32), exact)


# --- dropout ------------------------------------------------------------------------------------


def with_dropout(model, p):
    """The model with dropout of probability p on the probabilities of every attention."""
    for module in model.modules():
        for name in ("drop", "dropout", "attn_dropout", "attention_dropout"):
            inner = getattr(module, name, None)
            if isinstance(inner, float):
                setattr(module, name, p)
            elif isinstance(inner, torch.nn.Dropout) and (
                name != "dropout" or hasattr(module, "key")  # else behind an attention
            ):
                inner.p = p
    return model


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "nano_gpt", "torch_weights_discarded"])
def test_dropout_has_the_same_mean_and_spread(name, entries, compile_eager):
    """The random numbers are others: many copies of the same texts, each with its own."""
    entry, copies, p = entries[name], 150, 0.3
    model, args, kwargs = entry.build()
    with_dropout(model.train(), p)
    first = tree_map(lambda x: x[:1], (args, kwargs))  # one text, and each copy is a sample
    args, kwargs = tree_map(lambda x: x.repeat(copies, *[1] * (x.dim() - 1)), first)

    with torch.no_grad(), collect() as report:
        compiled = compile_eager(model)
        got, want = (
            torch.cat([floats(run(*args, **kwargs))[0] for _ in range(4)])
            for run in (compiled, model)
        )

    assert_seen(entry, report, torch.float32)
    noise = ((got.var(0) + want.var(0)) / len(got)).sqrt()
    assert (noise > 0).all()  # dropout took place
    assert ((got.mean(0) - want.mean(0)) / noise).abs().max() <= 6
    assert 0.9 <= (got.var(0).mean() / want.var(0).mean()).item() <= 1.1
