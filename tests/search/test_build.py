"""From genes to a module: every choice of a space builds, and mistakes are named by their path."""

import pytest
import torch
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from formwright.compiler import collect
from formwright.search.blocks import Site
from formwright.search.errors import SpecError, UnknownNameError
from formwright.search.model import build
from formwright.search.norms import NORMS
from formwright.search.space import SPACES, Signature
from formwright.search.space.metaformer import MIXERS
from formwright.search.spec import ArchSpec, BlockSpec, LayerSpec

MLP = BlockSpec.of("mlp", hidden=32, activation="gelu")
POOL = BlockSpec.of("pool", size=3)
SIGNATURES = [Signature.of_images((1, 8, 8), 10), Signature.of_images((3, 4, 6), 2)]


def attention(**changed):
    plain = {"heads": 4, "kv_heads": 4, "head_width": 4, "positions": "none", "span": 4}
    settings = {**plain, **changed}
    return BlockSpec.of("attention", **settings)


def spec_of(*layers, **changed):
    sizes = {"image": (1, 8, 8), "classes": 10, "patch": 2, "width": 16, **changed}
    return ArchSpec.of_images(**sizes, layers=layers)


def genes(name):
    """Any genes of the space, not in canonical form."""
    space = SPACES.load(name)
    return st.fixed_dictionaries({g.name: st.sampled_from(g.choices) for g in space.genes})


@pytest.mark.parametrize("name", SPACES.names())
@given(data=st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_genes_build(name, data):
    space, signature = SPACES.load(name), data.draw(st.sampled_from(SIGNATURES))
    drawn = data.draw(genes(name))
    assume(not space.broken(drawn))
    canonical = space.canonical(drawn)

    try:
        spec = space.decode(canonical, signature)
    except SpecError:
        reject()  # an image that is too small

    assert spec == space.decode(drawn, signature)  # what is asleep does not matter
    assert space.canonical(canonical) == canonical
    assert ArchSpec.from_json(spec.to_json()) == spec
    logits = build(spec)(torch.randn(2, *signature.image))
    assert logits.shape == (2, signature.classes)
    assert logits.isfinite().all()


def test_the_seed_decides_the_parameters():
    spec = spec_of(LayerSpec(POOL, MLP, "rms"))
    models = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        models.append(build(spec).state_dict())

    one, same, other = models
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["stem.positions.table"], other["stem.positions.table"])


def test_patches_are_tokens_row_by_row():
    model = build(spec_of(image=(1, 4, 6), width=1, patch=2))
    with torch.no_grad():
        model.stem.patches.weight.fill_(1)
        model.stem.patches.bias.zero_()
    image = torch.arange(6.0).view(2, 3).repeat_interleave(2, 0).repeat_interleave(2, 1)

    tokens = model.stem.patches(image[None, None]).flatten(2)

    assert tokens.flatten().tolist() == [0, 4, 8, 12, 16, 20]


def test_no_layers_are_fine():
    assert build(spec_of())(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_any_block_may_stand_in_either_place():
    model = build(spec_of(LayerSpec(MLP, POOL, "layer")))

    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_pooling_a_constant_image_adds_nothing(norm):
    model = build(spec_of(LayerSpec(POOL, MLP, norm)))
    (layer,) = model.stages[0].layers
    x = torch.randn(1, 1, 16).expand(2, 16, 16)

    torch.testing.assert_close(layer.blocks[0](x), torch.zeros(2, 16, 16), atol=1e-6, rtol=0)
    torch.testing.assert_close(layer(x), x + layer.blocks[1](layer.norms[1](x)))


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_norms_normalise(norm):
    y = NORMS.load(norm).make({}, Site(64, (5,)), "norm")(torch.randn(1, 5, 64) * 7)[0]

    torch.testing.assert_close(y.square().mean(-1), torch.ones(5), rtol=1e-3, atol=0)


def test_a_layer_is_what_it_says():
    model = build(spec_of(LayerSpec(POOL, MLP, "rms"), LayerSpec(MLP, MLP, "layer")))
    images = torch.randn(3, 1, 8, 8)

    x = model.stem.patches(images).flatten(2).transpose(1, 2) + model.stem.positions.table
    for layer in model.stages[0].layers:
        x = x + layer.blocks[0](layer.norms[0](x))
        x = x + layer.blocks[1](layer.norms[1](x))

    torch.testing.assert_close(model(images), model.head.linear(model.norm(x).mean(1)))


def test_our_compiler_takes_a_whole_model():
    spec = spec_of(*(LayerSpec(mixer(16), MLP, "rms") for mixer in MIXERS.values()))
    model, images = build(spec).eval(), torch.randn(3, 1, 8, 8)
    compiled = torch.compile(model, backend="formwright", options={"target": "eager"})

    with torch.no_grad(), collect() as report:
        torch.testing.assert_close(compiled(images), model(images), rtol=1e-4, atol=1e-5)

    assert report.row("capture").rewritten == report.graphs == 1
    assert report.row("fuse_attention").rewritten == 1
    assert not report.declines()


GOOD = LayerSpec(POOL, MLP, "rms")


@pytest.mark.parametrize(
    ("layer", "field", "said"),
    [
        (
            LayerSpec(POOL, MLP, "batch"),
            "layers[1].norm",
            "unknown norm 'batch'; known: crms, layer",
        ),
        (LayerSpec(BlockSpec.of("pol"), MLP, "rms"), "layers[1].mixer.name", "Did you mean 'pool'"),
        (
            LayerSpec(POOL, BlockSpec.of("no"), "rms"),
            "layers[1].channel.name",
            "unknown block 'no'",
        ),
    ],
    ids=["norm", "mixer", "channel"],
)
def test_unknown_names_are_named(layer, field, said):
    with pytest.raises(UnknownNameError, match="known: ") as caught:
        build(spec_of(GOOD, layer))

    assert caught.value.field == field
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("mixer", "channel", "field"),
    [
        (attention(heads="4"), MLP, "layers[1].mixer.heads"),
        (attention(heads=0), MLP, "layers[1].mixer.heads"),
        (attention(heads=3), MLP, "layers[1].mixer"),
        (BlockSpec.of("attention", heads=4), MLP, "layers[1].mixer"),
        (POOL, BlockSpec.of("mlp", hidden=1.5, activation="gelu"), "layers[1].channel.hidden"),
        (POOL, BlockSpec.of("mlp", hidden=1, depth=2), "layers[1].channel"),
    ],
    ids=lambda v: v.name if isinstance(v, BlockSpec) else v,
)
def test_wrong_settings_are_named(mixer, channel, field):
    with pytest.raises(SpecError) as caught:
        build(spec_of(GOOD, LayerSpec(mixer, channel, "rms")))

    assert caught.value.field == field
