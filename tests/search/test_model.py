"""Whole architectures: residual forms, stages, padding, step by step, what they cost."""

import math
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from formwright.compiler import Reason, collect
from formwright.search import BLOCKS, NORMS, SpecError, build, cost_of
from formwright.search.blocks import Causal, Kind
from formwright.search.ends import HEADS, STEMS
from formwright.search.ends.unfold import places
from formwright.search.spec import ArchSpec, BlockSpec, LayerSpec, StageSpec

WIDTH, LENGTH = 16, 12
MLP = BlockSpec.of("mlp", hidden=24, activation="gelu")
POOL = BlockSpec.of("pool", size=3)
TOKENS = BlockSpec.of("tokens", vocabulary=30, length=LENGTH, causal=True, positions=True)
SERIES = BlockSpec.of("series", channels=2, length=48, patch=4, causal=True, positions=True)
IMAGE = BlockSpec.of("image", channels=3, height=8, width=8, patch=1, positions=False)
LANGUAGE = BlockSpec.of("language", tied=True)
CLASSES = BlockSpec.of("classes", classes=5)


def sampled(name, table=BLOCKS, at=0):
    """The spec of a sample of a block."""
    config = table.load(name).samples[at][0]
    return BlockSpec.of(name, **vars(config))


def causal_mixers():
    for name in BLOCKS.names():
        block = BLOCKS.load(name)
        if block.kind == Kind.MIXER and block.causal != Causal.NEVER:
            yield sampled(name)


def spec_of(*layers, stem=TOKENS, head=LANGUAGE, norm="rms"):
    return ArchSpec(stem, (StageSpec(WIDTH, layers),), BlockSpec(norm), head)


PYRAMID = ArchSpec(
    IMAGE,
    (
        StageSpec(8, (LayerSpec(POOL, MLP, "layer", scale=0.1),)),
        StageSpec(16, (LayerSpec(sampled("attention"), MLP, "layer"),), merge=2),
        StageSpec(16, (LayerSpec(sampled("manhattan"), MLP, "rms", "post"),), merge=4),
    ),
    BlockSpec("layer"),
    CLASSES,
)
HYBRID = spec_of(
    *(LayerSpec(mixer, None, "rms") for mixer in causal_mixers()),
    LayerSpec(None, MLP, "scaled_rms"),
    LayerSpec(sampled("attention", at=2), MLP, "layer", "parallel", 0.5),
    LayerSpec(sampled("mamba2"), MLP, "layer", "post"),
)
SPECS = {
    "pyramid": PYRAMID,
    "hybrid": HYBRID,
    "series": spec_of(
        LayerSpec(sampled("retention"), MLP, "crms"),
        stem=SERIES,
        head=BlockSpec.of("token_classes", classes=3),
    ),
    "wider": ArchSpec(
        TOKENS,
        (
            StageSpec(8, (LayerSpec(None, MLP, "rms"),)),
            StageSpec(16, (LayerSpec(POOL, MLP, "rms"),)),
        ),
        BlockSpec("none"),
        BlockSpec.of("language", tied=False),
    ),
    "unfolded": spec_of(
        LayerSpec(sampled("attention"), MLP, "rms"),
        head=BlockSpec.of("unfold", classes=30, length=LENGTH + 1, hidden=20),
    ),
    "norms": spec_of(
        *(LayerSpec(POOL, MLP, sampled(name, NORMS)) for name in NORMS.names()),
        stem=IMAGE,
        head=CLASSES,
    ),
}
every_spec = pytest.mark.parametrize("name", SPECS)


def made(name, batch=2, spec=None):
    """The model in double precision, in evaluation, and an input."""
    spec = spec or SPECS[name]
    torch.manual_seed(0)
    stem = STEMS.load(spec.stem.name)
    inputs = stem.example(stem.config(**dict(spec.stem.settings)), batch)
    model = build(spec).double().eval()
    return model, inputs.double() if inputs.is_floating_point() else inputs


@every_spec
def test_costs_are_those_that_are_counted(name):
    model, inputs = made(name, batch=1)
    cost = cost_of(SPECS[name])
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model(inputs)

    assert cost.params == sum(p.numel() for p in model.parameters())
    assert cost.flops == flops.get_total_flops()


@every_spec
def test_it_comes_back_from_its_text(name):
    assert ArchSpec.from_json(SPECS[name].to_json()) == SPECS[name]


@every_spec
def test_gradients_reach_every_parameter(name):
    model, inputs = made(name)
    model.train()(inputs)  # PRepBN begins as a LayerNorm, and only then becomes more
    y = model(inputs)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y).cos()

    for gradient in torch.autograd.grad((y * weights).sum(), list(model.parameters())):
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


@every_spec
@torch.no_grad()
def test_compiled_is_as_eager(name):
    few = spec_of(*HYBRID.layers[-4:])  # every mixer by itself is compiled in test_blocks.py
    model, inputs = made(name, spec=few if name == "hybrid" else None)
    compiled = torch.compile(model, backend="formwright", options={"target": "eager"})
    with collect() as report:
        got = compiled(inputs)

    torch.testing.assert_close(got, model(inputs), rtol=1e-9, atol=1e-9)
    assert report.graphs == 1
    assert Reason.INTERNAL_ERROR not in {d.code for d in report.declines()}


@pytest.mark.parametrize("name", ["hybrid", "series", "wider"])
@torch.no_grad()
def test_step_by_step_is_as_all_at_once(name):
    model, inputs = made(name)
    pieces = inputs.split(4, -1) if name == "series" else inputs.unbind(1)
    state, rows = model.begin(len(inputs)), []
    for piece in pieces:
        y, state = model.step(piece, state)
        rows.append(y)

    torch.testing.assert_close(torch.stack(rows, 1), model(inputs), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_causal_model_sees_no_later_token():
    model, tokens = made("hybrid")
    changed = tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 30

    moved = (model(changed) - model(tokens)).abs().amax((0, 2))

    assert moved[:7].max() == 0
    assert moved[7:].min() > 0


def test_what_cannot_go_step_by_step_says_so():
    with pytest.raises(SpecError, match="step by step"):
        made("pyramid")[0].begin(1)


@torch.no_grad()
def test_padding_changes_nothing():
    model, tokens = made("hybrid")
    real = torch.ones_like(tokens, dtype=torch.bool)
    real[:, 9:] = False

    torch.testing.assert_close(model(tokens, real)[:, :9], model(tokens[:, :9]), rtol=1e-9, atol=0)


@torch.no_grad()
def test_padding_changes_nothing_of_a_pyramid():
    model, images = made("pyramid")
    real = torch.ones(2, 8, 8, dtype=torch.bool)
    real[0, :, 5:] = False
    changed = torch.where(real[:, None], images, images + 9)
    real = real.flatten(1)

    torch.testing.assert_close(model(images, real), model(changed, real), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        model(images, torch.ones_like(real)), model(images), rtol=1e-9, atol=1e-9
    )


@torch.no_grad()
def test_what_is_unfolded_is_the_last_token_that_is_real():
    model, tokens = made("unfolded")
    real = torch.ones_like(tokens, dtype=torch.bool)
    real[1, 9:] = False
    changed = torch.where(real, tokens, (tokens + 1) % 30)

    got = model(changed, real)

    assert got.shape == (2, LENGTH + 1, 30)
    torch.testing.assert_close(got[:1], model(tokens[:1]), rtol=1e-9, atol=0)
    torch.testing.assert_close(got[1:], model(tokens[1:, :9]), rtol=1e-9, atol=0)
    moved = tokens.clone()
    moved[:, 0] = (moved[:, 0] + 1) % 30
    assert (model(moved) - model(tokens)).abs().amax((0, 2)).min() > 0  # each place hears of it


@pytest.mark.parametrize("width", [6, 7])
def test_places_of_what_is_unfolded_are_sines_and_cosines(width):
    table = places(5, width)

    for at in range(5):
        for column in range(width):
            angle = at / 10_000 ** (2 * (column // 2) / width)
            wanted = math.cos(angle) if column % 2 else math.sin(angle)
            assert abs(table[at, column] - wanted) < 1e-5


def layer_of(residual, scale=0.0):
    torch.manual_seed(0)
    spec = spec_of(LayerSpec(POOL, MLP, "layer", residual, scale), stem=IMAGE, head=CLASSES)
    (layer,) = build(spec).stages[0].layers
    return layer, torch.randn(2, 64, WIDTH)


def test_residual_forms():
    x = torch.randn(2, 64, WIDTH)
    pre, _ = layer_of("pre")
    y = x + pre.blocks[0](pre.norms[0](x))
    torch.testing.assert_close(pre(x), y + pre.blocks[1](pre.norms[1](y)))

    post, _ = layer_of("post")
    y = post.norms[0](x + post.blocks[0](x))
    torch.testing.assert_close(post(x), post.norms[1](y + post.blocks[1](y)))

    parallel, _ = layer_of("parallel")
    (norm,) = parallel.norms
    want = x + parallel.blocks[0](norm(x)) + parallel.blocks[1](norm(x))
    torch.testing.assert_close(parallel(x), want)


def test_layer_scale_is_a_vector_for_each_block():
    layer, x = layer_of("pre", 0.25)
    plain, _ = layer_of("pre")

    assert [s.tolist() for s in layer.scales] == [[0.25] * WIDTH] * 2
    with torch.no_grad():
        for scale in layer.scales:
            scale.fill_(1)
    torch.testing.assert_close(layer(x), plain(x))


def test_a_merge_gathers_neighbours():
    model, _ = made("pyramid")
    merge = model.stages[1].merge
    x = torch.arange(64.0, dtype=torch.float64).view(1, 64, 1)

    assert merge._gathered(x)[0, 0].tolist() == [0, 1, 8, 9]
    assert merge._gathered(x)[0, 5].tolist() == [18, 19, 26, 27]


def test_tied_tables_are_one():
    model, _ = made("hybrid")

    assert model.head.linear.weight is model.stem.table.weight


WRONG = {
    "stem": (replace(HYBRID, stem=BlockSpec("words")), "stem.name", "unknown stem 'words'"),
    "head": (replace(HYBRID, head=BlockSpec("label")), "head.name", "unknown head 'label'"),
    "norm": (replace(HYBRID, norm=BlockSpec("rmss")), "norm", "Did you mean 'rms'"),
    "patch": (
        replace(PYRAMID, stem=BlockSpec.of("image", **{**dict(IMAGE.settings), "patch": 3})),
        "stem",
        "patches of 3 do not divide an image of 8 x 8",
    ),
    "merge": (
        replace(PYRAMID, stages=(PYRAMID.stages[0], StageSpec(8, (), 3))),
        "stages[1].merge",
        "3 does not divide a grid of 8 x 8",
    ),
    "causal merge": (
        replace(HYBRID, stages=(HYBRID.stages[0], StageSpec(16, (), 2))),
        "stages[1].merge",
        "merged tokens see later ones",
    ),
    "sees later": (
        spec_of(LayerSpec(sampled("simple_attention"), None, "rms")),
        "layers[0].mixer",
        "sees later tokens; the site is causal",
    ),
    "table": (
        replace(PYRAMID, head=LANGUAGE),
        "head",
        "a language model wants the stem of tokens",
    ),
    "tied": (
        replace(SPECS["wider"], head=LANGUAGE),
        "head",
        "the last stage is 16 wide, the table of the stem 8",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_named(name):
    spec, field, said = WRONG[name]
    with pytest.raises(SpecError) as caught:
        build(spec)

    assert caught.value.field == field
    assert said in str(caught.value)


def test_every_stem_and_head_is_tried_here():
    assert {spec.stem.name for spec in SPECS.values()} == set(STEMS.names())
    assert {spec.head.name for spec in SPECS.values()} == set(HEADS.names())
