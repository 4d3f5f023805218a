"""What every block promises: shapes, gradients, and the same numbers through our compiler."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import formwright
from formwright.compiler import Reason, collect
from formwright.search.blocks import BLOCKS, Causal, Kind, Site

from .samples import SAMPLES, SETTINGS, SITE, every_sample, make


def gradients(module, x):
    """Of an arbitrary weighted sum of the output, by input and parameters."""
    return values_and_gradients(module, x)[1:]


def values_and_gradients(module, x):
    x = x.clone().requires_grad_()
    y = module(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y).cos()
    return y, *torch.autograd.grad((y * weights).sum(), [x, *module.parameters()])


@every_sample
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_kept(sample, dtype):
    module, x = make(sample, dtype)

    y = module(x)

    assert y.shape == x.shape
    assert y.dtype == dtype
    assert y.isfinite().all()


@every_sample
def test_gradients_reach_every_parameter(sample):
    for gradient in gradients(*make(sample)):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


# Each block both ways, its further samples in turn; of identity there is nothing to compile.
COMPILED = [
    pytest.param((block := BLOCKS.load(name), *block.samples[at]), mode, id=f"{mode}-{name}-{at}")
    for name, at in SAMPLES
    if name != "identity"
    for mode in (("inference", "training") if at == 0 else (("inference", "training")[at % 2],))
]


@pytest.mark.parametrize(("sample", "mode"), COMPILED)
def test_compiled_is_as_eager(sample, mode):
    training = mode == "training"
    module, x = make(sample)
    module.train(training)
    compiled = torch.compile(
        module, backend="formwright", options={"target": "eager"}, fullgraph=True
    )

    run = values_and_gradients if training else torch.no_grad()(nn.Module.__call__)

    with collect() as report:
        got = run(compiled, x)

    torch.testing.assert_close(got, run(module, x), rtol=1e-10, atol=1e-10)
    assert report.row("capture").rewritten == report.graphs == 1
    assert Reason.INTERNAL_ERROR not in {d.code for d in report.declines()}


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("at", range(len(BLOCKS.load("attention").samples)))
def test_our_compiler_fuses_attention(at, training):
    block = BLOCKS.load("attention")
    module, x = make((block, *block.samples[at]), torch.float32)

    with torch.set_grad_enabled(training):
        report = formwright.explain(module.train(training), x)

    assert report.row("fuse_attention").rewritten == report.row("fuse_attention").sites == 1


# --- what a token sees ----------------------------------------------------------------------------


def is_causal(block, site):
    return site.causal or block.causal == Causal.ALWAYS


def seen_by(module, x):
    """[T, T]: whether changing token `s` changes token `t`."""
    rows = []
    for token in range(x.shape[1]):
        changed = x.clone()
        changed[:, token] += 1
        rows.append((module(changed) - module(x)).abs().amax((0, 2)) > 0)
    return torch.stack(rows, 1)


@every_sample
@torch.no_grad()
def test_what_is_causal_sees_no_later_token(sample):
    block, _, site = sample
    seen = seen_by(*make(sample))

    # the mean of itself alone, less itself, is nothing
    assert seen.diagonal()[1 if block.name == "pool" else 0 :].all()
    if is_causal(block, site):
        assert not seen.triu(1).any()
    elif block.kind == Kind.MIXER and block.name != "identity":
        assert seen.triu(1).any()
    if block.kind == Kind.CHANNEL or block.name == "identity":
        assert seen.sum() == site.tokens
    else:
        assert seen.tril(-1).any()


# what stands at an absolute place, or in chunks that begin at the first: padding goes to the right
PLACED = {"diag_attention", "random", "simple_attention"}


@every_sample
@torch.no_grad()
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_nothing(sample, side):
    """As if it were not there: the same as for the shorter row of tokens alone."""
    block, config, site = sample
    if len(site.grid) > 1:
        site = replace(site, grid=(site.tokens,)) if 1 in block.grids else site
    if len(site.grid) > 1 or (side == "left" and block.name in PLACED):
        pytest.skip("there is no such row")
    module, x = make((block, config, site))
    short = site.tokens - 2
    real = torch.ones(3, site.tokens, dtype=torch.bool)
    kept = slice(0, short) if side == "right" else slice(2, None)
    real[:] = False
    real[:, kept] = True
    x[~real] *= 1e3

    torch.testing.assert_close(module(x, real)[:, kept], module(x[:, kept]), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(module(x, torch.ones_like(real)), module(x), rtol=1e-9, atol=1e-9)
    assert module(x, real).isfinite().all()


@every_sample
def test_what_is_padding_changes_nothing_else_on_a_grid(sample):
    module, x = make(sample)
    real = torch.ones(x.shape[:2], dtype=torch.bool)
    real[1, ::3] = False
    x = x.requires_grad_()

    y = module(x, real)
    (gradient,) = torch.autograd.grad(y[real].sum(), x)
    changed = torch.where(real[..., None], x, x + 7)

    torch.testing.assert_close(module(changed, real)[real], y[real], rtol=1e-9, atol=1e-9)
    assert gradient[~real].abs().max() == 0
    assert gradient.isfinite().all()


@every_sample
@torch.no_grad()
def test_step_by_step_is_as_all_at_once(sample):
    block, config, site = sample
    if not is_causal(block, site):
        pytest.skip("it sees later tokens")
    module, x = make(sample)
    state, rows, kept = module.begin(len(x)), [], []
    for token in x.unbind(1):
        y, state = module.step(token, state)
        rows.append(y)
        kept.append(sum(v.numel() for v in tree_leaves(state) if v.is_floating_point()))

    torch.testing.assert_close(torch.stack(rows, 1), module(x), rtol=1e-9, atol=1e-9)
    assert max(kept) == len(x) * block.cost_at(config, site).state


@every_sample
def test_the_same_seed_is_the_same_block(sample):
    (one, x), (other, _) = make(sample), make(sample)

    assert torch.equal(one(x), other(x))
    assert torch.equal(one(x), one(x))


@every_sample
def test_images_do_not_see_each_other(sample):
    module, x = make(sample)

    torch.testing.assert_close(module(x)[1:2], module(x[1:2]))


@every_sample
def test_an_empty_batch_is_fine(sample):
    module, x = make(sample)

    assert module(x[:0]).shape == x[:0].shape


# --- each block is what its paper says ------------------------------------------------------------


def test_attention_is_that_of_torch():
    torch.manual_seed(0)
    module = BLOCKS.load("attention").make(SETTINGS["attention"], SITE, "mixer")
    other = nn.MultiheadAttention(16, 4, batch_first=True)
    qkv = (module.q, module.k, module.v)
    other.load_state_dict(
        {
            "in_proj_weight": torch.cat([part.weight for part in qkv]),
            "in_proj_bias": torch.cat([part.bias for part in qkv]),
            "out_proj.weight": module.out.weight,
            "out_proj.bias": module.out.bias,
        }
    )
    x = torch.randn(2, 16, 16)

    torch.testing.assert_close(module(x), other(x, x, x)[0])


@pytest.mark.parametrize("name", ["pool", "conv"])
def test_the_grid_is_read_row_by_row(name):
    torch.manual_seed(0)
    module = BLOCKS.load(name).make({"size": 3}, Site(width=2, grid=(3, 4)), "mixer")
    x = torch.randn(1, 12, 2)
    changed = x.clone()
    changed[0, 4] += 1  # row 1, column 0

    moved = (module(changed) - module(x)).abs().amax(-1).view(3, 4) > 1e-6

    assert moved.tolist() == [[True, True, False, False]] * 3


@pytest.mark.parametrize("name", ["attention", "mamba2", "conv"])
def test_the_last_token_sees_the_one_before(name):
    torch.manual_seed(0)
    module = BLOCKS.load(name).make(SETTINGS[name], SITE, "mixer")
    x = torch.randn(1, 16, 16)
    changed = x.clone()
    changed[0, 14] += 1

    assert (module(changed) - module(x))[0, 15].abs().max() > 1e-6


def test_mlp_looks_at_each_token_by_itself():
    torch.manual_seed(0)
    mlp = BLOCKS.load("mlp").make(SETTINGS["mlp"], SITE, "channel")
    x, order = torch.randn(2, 16, 16), torch.randperm(16)

    torch.testing.assert_close(mlp(x[:, order]), mlp(x)[:, order])
