"""Supernets: a sub-model is a slice, runs as itself, trains the whole, and comes out by itself."""

import random

import pytest
import torch
from torch.nn import functional as F

from formwright.search import SpecError, build, canonical, cost_of
from formwright.search.space import Signature, matformer
from formwright.search.spec import ArchSpec, BlockSpec, LayerSpec, StageSpec
from formwright.search.supernet import Supernet, narrowed, sampled, sandwich, summed

ATTENTION = BlockSpec.of("attention", heads=4, kv_heads=2, head_width=4, positions="rotary", span=9)
IMAGE = BlockSpec.of("image", channels=1, height=6, width=6, patch=2, positions=True)


def channel(name="mlp", hidden=12, activation="gelu", **settings):
    return BlockSpec.of(name, hidden=hidden, activation=activation, **settings)


THIN = channel("low_rank_mlp", rank=3)
POLY = channel(activation="poly_norm")
WHOLE = ArchSpec(
    IMAGE,
    (
        StageSpec(
            8,
            (
                LayerSpec(ATTENTION, channel(), "layer"),
                LayerSpec(None, channel("gated_mlp"), "rms"),
            ),
        ),
        StageSpec(
            12,
            (
                LayerSpec(ATTENTION, THIN, BlockSpec.of("prepbn", steps=2)),
                LayerSpec(ATTENTION, POLY, "layer", "post", 0.5),
            ),
        ),
    ),
    BlockSpec("layer"),
    BlockSpec.of("classes", classes=3),
)
SUBS = [
    narrowed(WHOLE, (3, 6, 5, 4)),
    narrowed(WHOLE, (12, 1, 12), (2, 1)),
    narrowed(WHOLE, (4,), (1, 0)),
    narrowed(WHOLE, (12, 12, 12, 12)),
    narrowed(WHOLE, (3, 6, 5, 4), heads=(2, 4, 2)),
]


def net():
    torch.manual_seed(0)
    return Supernet(WHOLE, build(WHOLE).double())


def batch(count=5):
    torch.manual_seed(1)
    return torch.randn(count, 1, 6, 6, dtype=torch.float64), torch.arange(count) % 3


def masked(whole, sub, inputs):
    """The whole with every hidden unit beyond those of the sub-model at zero, and without layers
    that it does not have: what a slice has to be. PolyNorm's mean is over the units that stay."""
    model = whole.model
    x = model.stem(inputs)
    for stage, part in zip(model.stages, sub.stages, strict=True):
        if stage.merge is not None:
            x, _ = stage.merge(x, None)
        for layer, spec in zip(stage.layers, part.layers, strict=False):
            hooks = []
            for block, of in zip(
                layer.blocks, [b for b in (spec.mixer, spec.channel) if b], strict=True
            ):
                settings = dict(of.settings)
                if "hidden" in settings:
                    hooks.append(cut(block, settings["hidden"]))
                if "heads" in settings:
                    inner = settings["heads"] * settings["head_width"]
                    hooks.append(block.out.register_forward_pre_hook(only(inner)))
            x = layer(x)
            for hook in hooks:
                hook.remove()
    return model.head(model.norm(x))


def only(kept):
    """Makes what goes into a linear map zero beyond the first `kept` numbers."""

    def zero(module, args):
        (x,) = args
        return torch.cat([x[..., :kept], torch.zeros_like(x[..., kept:])], -1)

    return zero


def cut(block, kept):
    """Makes the hidden layer of a block zero beyond the first `kept` units."""

    def zero(module, args, out):
        return torch.cat([out[..., :kept], torch.zeros_like(out[..., kept:])], -1)

    poly = type(block.activation).__name__ == "PolyNorm" if hasattr(block, "activation") else False
    if not poly:
        return block.activation.register_forward_hook(zero)

    def over_kept(module, args, out):
        (x,) = args
        y = module.__class__.forward(module, x[..., :kept])
        return torch.cat([y, torch.zeros_like(out[..., kept:])], -1)

    return block.activation.register_forward_hook(over_kept)


@pytest.mark.parametrize("at", range(len(SUBS)))
@torch.no_grad()
def test_masked_is_sliced(at):
    whole, (inputs, _) = net(), batch()
    whole.model.eval()

    torch.testing.assert_close(
        whole.run(SUBS[at], inputs), masked(whole, SUBS[at], inputs), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("at", range(len(SUBS)))
@torch.no_grad()
def test_what_is_extracted_is_the_sub_model(at):
    whole, (inputs, _) = net(), batch()
    whole.model.train()(inputs)  # its statistics are no longer those of the start
    whole.model.eval()
    made = whole.extract(SUBS[at])

    torch.testing.assert_close(made(inputs), whole.run(SUBS[at], inputs), rtol=1e-12, atol=1e-12)
    assert sum(p.numel() for p in made.parameters()) == cost_of(SUBS[at]).params
    assert all(p.is_contiguous() for p in made.parameters())
    theirs = {p.data_ptr() for p in whole.model.parameters()}
    assert not theirs & {p.data_ptr() for p in made.parameters()}
    assert all(p.requires_grad for p in made.parameters())


def test_the_largest_is_the_whole():
    whole, (inputs, labels) = net(), batch()
    whole.model.eval()
    weights = list(whole.model.parameters())
    value = F.cross_entropy(whole.model(inputs), labels)
    want = torch.autograd.grad(value, weights, allow_unused=True)
    (said,) = summed(whole, [WHOLE], inputs, labels, F.cross_entropy)

    assert said == pytest.approx(value.item())
    for weight, gradient in zip(weights, want, strict=True):
        if gradient is not None:
            torch.testing.assert_close(weight.grad, gradient)


def test_gradients_of_a_slice_stay_in_it():
    whole, (inputs, labels) = net(), batch()
    summed(whole, [narrowed(WHOLE, (3, 6, 5, 4))], inputs, labels, F.cross_entropy)
    mlp = whole.model.stages[0].layers[0].blocks[1]

    assert mlp.widen.weight.grad[:3].abs().min() > 0
    assert mlp.widen.weight.grad[3:].abs().max() == 0
    assert mlp.narrow.weight.grad[:, 3:].abs().max() == 0


def test_gradients_of_all_add_up():
    both, one, (inputs, labels) = net(), net(), batch()
    for whole in (both, one):
        whole.model.eval()
    summed(both, SUBS[:2], inputs, labels, F.cross_entropy)
    for sub in SUBS[:2]:
        summed(one, [sub], inputs, labels, F.cross_entropy)

    for mine, theirs in zip(both.model.parameters(), one.model.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("form", ["summed", "sampled", "sandwich"])
def test_training_makes_every_sub_model_better(form):
    whole, (inputs, labels), rng = net(), batch(12), random.Random(0)
    subs = [narrowed(WHOLE, (n,) * 4) for n in (3, 6, 12)]
    optimiser = torch.optim.Adam(whole.model.parameters(), lr=1e-2)

    @torch.no_grad()
    def losses():
        return [F.cross_entropy(whole.run(s, inputs), labels).item() for s in subs]

    before = losses()
    for _ in range(60):
        optimiser.zero_grad()
        given = (whole, subs, inputs, labels, F.cross_entropy)
        if form == "summed":
            assert len(summed(*given)) == 3
        else:
            step = sampled if form == "sampled" else sandwich
            assert len(step(*given, rng)) == (1 if form == "sampled" else 4)
        optimiser.step()

    assert all(after < 0.5 * was for after, was in zip(losses(), before, strict=True))


def test_the_sandwich_tells_the_largest_the_labels_and_the_rest_what_it_said():
    whole, (inputs, labels) = net(), batch()
    whole.model.eval()
    subs = [narrowed(WHOLE, (n,) * 4) for n in (3, 12)]
    losses = sandwich(whole, subs, inputs, labels, F.cross_entropy, random.Random(0))
    with torch.no_grad():
        said, small = whole.model(inputs), whole.run(subs[0], inputs)

    assert losses[0] == pytest.approx(F.cross_entropy(said, labels).item())
    assert losses[1] == pytest.approx(F.cross_entropy(small, said.softmax(-1)).item())


@pytest.mark.parametrize(
    ("hidden", "depths", "said"),
    [
        ((3, 6, 5), None, "fewer numbers than blocks that have hidden"),
        ((3, 6, 5, 4, 2), None, "1 more numbers than blocks that have hidden"),
        ((3, 6, 5, 13), None, "13 is not in 1..12"),
        ((3, 0, 5, 4), None, "0 is not in 1..12"),
        ((3,), (1,), "wanted 2 depths"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(hidden, depths, said):
    with pytest.raises(SpecError, match=said):
        narrowed(WHOLE, hidden, depths)


@pytest.mark.parametrize(
    ("heads", "said"),
    [
        ((3, 4, 4), "2 heads read one head of keys; 3 heads do not"),
        ((6, 4, 4), "6 is not in 1..4"),
        ((2, 4), "fewer numbers than blocks that have heads"),
        ((2, 4, 4, 4), "1 more numbers than blocks that have heads"),
    ],
)
def test_heads_that_do_not_fit_are_refused(heads, said):
    with pytest.raises(SpecError, match=said):
        narrowed(WHOLE, (12,) * 4, heads=heads)


def test_heads_that_share_one_head_of_keys_may_be_fewer():
    shared = BlockSpec.of("attention", **(dict(ATTENTION.settings) | {"kv_heads": 1}))
    spec = other(mixer=shared)
    sub = narrowed(spec, (12,) * 4, heads=(3, 4, 4))

    assert dict(sub.stages[0].layers[0].mixer.settings)["heads"] == 3
    assert dict(sub.stages[0].layers[0].mixer.settings)["kv_heads"] == 1


@pytest.mark.parametrize("depths", [(9, 2), (-1, 2)])
def test_depths_that_do_not_fit_are_refused(depths):
    with pytest.raises(SpecError, match=r"is not in 0\.\.2"):
        narrowed(WHOLE, (12,) * 4, depths)


def test_layers_that_count_themselves_do_not_become_fewer():
    with pytest.raises(SpecError, match="with fewer layers scaled_rms would compute"):
        narrowed(other(norm="scaled_rms"), (12, 12, 12), (2, 1))


def test_what_a_search_finds_is_a_sub_model():
    signature = Signature.of_images((1, 8, 8), 10)
    spec = matformer.whole(signature)
    genes = matformer.SPACE.sample(random.Random(0)) | {"patch": 2}
    found = canonical(matformer.decode(genes, signature))

    assert Supernet(spec, build(spec)).extract(found)(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_a_network_that_first_ran_in_inference_mode_trains():
    whole, (inputs, labels) = net(), batch()
    with torch.inference_mode():
        whole.run(SUBS[0], inputs)

    assert summed(whole, [SUBS[0]], inputs, labels, F.cross_entropy)[0] > 0


def test_heads_whose_slopes_would_change_are_refused():
    alibi = BlockSpec.of("attention", **(dict(ATTENTION.settings) | {"positions": "alibi"}))
    with pytest.raises(SpecError, match="the slopes of alibi depend on how many heads"):
        narrowed(other(mixer=alibi), (12,) * 4, heads=(2, 4, 4))


def other(**changed):
    """WHOLE with another first layer."""
    first, *rest = WHOLE.stages
    layer = LayerSpec(**({"mixer": ATTENTION, "channel": channel(), "norm": "layer"} | changed))
    stage = StageSpec(first.width, (layer, *first.layers[1:]))
    return ArchSpec(WHOLE.stem, (stage, *rest), WHOLE.norm, WHOLE.head)


@pytest.mark.parametrize(
    ("sub", "said"),
    [
        (other(norm="rms"), "has the norm and form of the whole"),
        (other(residual="post"), "has the norm and form of the whole"),
        (other(mixer=None), "wanted BlockSpec"),
        (other(channel=channel(activation="relu")), "wanted gelu, got relu"),
        (ArchSpec(WHOLE.stem, WHOLE.stages[:1], WHOLE.norm, WHOLE.head), "widths and merges"),
        (ArchSpec(WHOLE.stem, WHOLE.stages, BlockSpec("rms"), WHOLE.head), "the last norm"),
    ],
)
def test_what_is_no_sub_model_is_refused(sub, said):
    whole, (inputs, _) = net(), batch()
    for use in (lambda: whole.run(sub, inputs), lambda: whole.extract(sub)):
        with pytest.raises(SpecError, match=said):
            use()
