"""What every block promises: shapes, gradients, and the same numbers through our compiler."""

from dataclasses import asdict

import pytest
import torch
from torch import nn

import formwright
from formwright.compiler import Reason, collect
from formwright.search.blocks import BLOCKS, Site
from formwright.search.errors import SpecError

SAMPLES = [(name, at) for name in BLOCKS.names() for at in range(len(BLOCKS.load(name).samples))]
SITE = Site(width=16, grid=(4, 4))
# of the first sample of each block; blocks without settings have nothing to refuse
SETTINGS = {
    name: settings
    for name in BLOCKS.names()
    if (settings := asdict(BLOCKS.load(name).samples[0][0]))
}


@pytest.fixture(params=SAMPLES, ids=lambda s: f"{s[0]}-{s[1]}")
def sample(request):
    """`(block, config, site)` of each sample in turn."""
    name, at = request.param
    block = BLOCKS.load(name)
    return block, *block.samples[at]


def make(sample, dtype=torch.float64):
    """The module of a sample, and an input of three images for it."""
    block, config, site = sample
    torch.manual_seed(1)
    module = block.module(config, site).to(dtype)
    return module, torch.randn(3, site.tokens, site.width, dtype=dtype)


def gradients(module, x):
    """Of an arbitrary weighted sum of the output, by input and parameters."""
    return values_and_gradients(module, x)[1:]


def values_and_gradients(module, x):
    x = x.clone().requires_grad_()
    y = module(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y).cos()
    return y, *torch.autograd.grad((y * weights).sum(), [x, *module.parameters()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_kept(sample, dtype):
    module, x = make(sample, dtype)

    y = module(x)

    assert y.shape == x.shape
    assert y.dtype == dtype
    assert y.isfinite().all()


def test_gradients_reach_every_parameter(sample):
    for gradient in gradients(*make(sample)):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_compiled_is_as_eager(sample, training):
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
    # in training nothing of the weights is prepared, and that is all that is left as it was
    assert {d.code for d in report.declines()} <= ({Reason.TRAINING} if training else set())


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_our_compiler_fuses_attention(training):
    module = BLOCKS.load("attention").make({"heads": 4}, SITE, "mixer").train(training)

    with torch.set_grad_enabled(training):
        report = formwright.explain(module, torch.randn(2, 16, 16))

    assert report.row("fuse_attention").rewritten == report.row("fuse_attention").sites == 1


def test_the_same_seed_is_the_same_block(sample):
    (one, x), (other, _) = make(sample), make(sample)

    assert torch.equal(one(x), other(x))
    assert torch.equal(one(x), one(x))


def test_images_do_not_see_each_other(sample):
    module, x = make(sample)

    torch.testing.assert_close(module(x)[1:2], module(x[1:2]))


def test_an_empty_batch_is_fine(sample):
    module, x = make(sample)

    assert module(x[:0]).shape == x[:0].shape


# --- each block is what its paper says ------------------------------------------------------------


def test_attention_is_that_of_torch():
    torch.manual_seed(0)
    module = BLOCKS.load("attention").make({"heads": 4}, SITE, "mixer")
    other = nn.MultiheadAttention(16, 4, batch_first=True)
    other.load_state_dict(
        {
            "in_proj_weight": module.qkv.weight,
            "in_proj_bias": module.qkv.bias,
            "out_proj.weight": module.out.weight,
            "out_proj.bias": module.out.bias,
        }
    )
    x = torch.randn(2, 16, 16)

    torch.testing.assert_close(module(x), other(x, x, x)[0])


def test_pool_by_hand():
    pool = BLOCKS.load("pool").make({"size": 3}, Site(width=1, grid=(1, 3)), "mixer")

    assert pool(torch.tensor([[[1.0], [2.0], [3.0]]])).flatten().tolist() == [0.5, 0.0, -0.5]


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
    mlp = BLOCKS.load("mlp").make({"ratio": 2}, SITE, "channel")
    x, order = torch.randn(2, 16, 16), torch.randperm(16)

    torch.testing.assert_close(mlp(x[:, order]), mlp(x)[:, order])


# --- settings that are wrong ----------------------------------------------------------------------


def refused(name, settings, site=SITE):
    """What is said of these settings: `(field, message)`."""
    with pytest.raises(SpecError) as caught:
        BLOCKS.load(name).make(settings, site, "layers[1].mixer")
    return caught.value.field, str(caught.value)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_all_given_and_no_others(name):
    first, *rest = SETTINGS[name]

    field, message = refused(name, {key: SETTINGS[name][key] for key in rest})
    assert field == "layers[1].mixer"
    assert first in message
    field, message = refused(name, {**SETTINGS[name], "colour": 1})
    assert field == "layers[1].mixer"
    assert "colour" in message


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "2"], ids=repr)
@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_positive_whole_numbers(name, value):
    for setting in SETTINGS[name]:
        field, message = refused(name, {**SETTINGS[name], setting: value})
        assert field == f"layers[1].mixer.{setting}"
        assert repr(value) in message


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("attention", {"heads": 4}, "4 heads do not divide a width of 30"),
        ("pool", {"size": 2}, "a pool of 2 has no middle; wanted an odd size"),
        ("conv", {"size": 4}, "a convolution of 4 has no middle; wanted an odd size"),
        ("mamba2", SETTINGS["mamba2"], "heads of 16 do not divide the inner width 60"),
    ],
)
def test_settings_fit_the_site(name, settings, message):
    field, said = refused(name, settings, Site(width=30, grid=(4, 4)))

    assert field == "layers[1].mixer"
    assert said == f"layers[1].mixer: {message}"
