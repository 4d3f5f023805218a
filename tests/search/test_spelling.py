"""Specs that are merged train alike, number for number; their neighbours stay apart."""

import random

import pytest
import torch

from formwright.search import BLOCKS, NORMS, SPACES, SpecError, build, canonical
from formwright.search.ends import STEMS
from formwright.search.layout import lay_out
from formwright.search.space import Signature
from formwright.search.spec import ArchSpec, BlockSpec, LayerSpec, StageSpec
from formwright.search.spelling import CHANNEL, OF_DEPTH, STILL, Here, spelled

# The third step is the first whose outputs depend on gradients inside a branch of scale 0; the
# norm that fades is another one behind its second.
WIDTH, STEPS = 8, 4
DRAWN_NORMS = [
    *map(BlockSpec, ("layer", "rms", "none", "scaled_layer", "scaled_rms", "crms")),
    BlockSpec.of("prepbn", steps=2),
]
ROW = BlockSpec.of("tokens", vocabulary=11, length=6, causal=True, positions=True)
IMAGE = BlockSpec.of("image", channels=1, height=4, width=4, patch=1, positions=True)
COLUMN = BlockSpec.of("image", channels=1, height=4, width=1, patch=1, positions=True)


def attention(rng):
    heads = rng.choice([1, 2, 4])
    return BlockSpec.of(
        "attention",
        heads=heads,
        kv_heads=rng.choice([1, heads]),
        head_width=rng.choice([2, 4, 6]),
        positions=rng.choice(["none", "rotary", "alibi"]),
        span=rng.choice([1, 2, 3, 4, 6, 7, 99]),
    )


def drawn_block(rng, causal):
    """Settings that often mean the same as others."""
    chunk = rng.choice([1, 2, 6, 16, 20])
    return rng.choice(
        [
            lambda: attention(rng),
            lambda: BlockSpec.of("diag_attention", heads=2, chunk=chunk),
            lambda: BlockSpec.of("norm_attention", heads=2, chunk=chunk),
            lambda: BlockSpec.of(
                "linear_attention", heads=2, chunk=chunk, rotate=rng.random() < 0.5
            ),
            lambda: BlockSpec.of("mamba2", expand=1, head_width=4, state=3, conv=2, chunk=chunk),
            lambda: BlockSpec.of("retention", heads=2, expand=1, chunk=chunk),
            lambda: BlockSpec.of("phi_mamba", heads=2, state=3, conv=2, chunk=chunk),
            lambda: BlockSpec("random"),
            lambda: BlockSpec.of("pool", size=rng.choice([1, 3, 5, 7, 9])),
            lambda: BlockSpec.of("mlp", hidden=rng.choice([5, 9]), activation="gelu"),
            lambda: (
                BlockSpec("identity")
                if causal
                else BlockSpec.of(
                    "manhattan", heads=2, reach=4, decomposed=rng.random() < 0.5, inside=True
                )
            ),
        ]
    )()


def drawn(rng):
    """An architecture with few layers, cut into stages where that means nothing."""
    stem = rng.choice([ROW, IMAGE, COLUMN])
    causal = stem is ROW

    def layer():
        mixer, channel = (
            drawn_block(rng, causal) if rng.random() < 0.75 else None for _ in range(2)
        )
        residual = rng.choice(["pre", "pre", "post", "parallel"])
        return LayerSpec(mixer, channel, rng.choice(DRAWN_NORMS), residual, rng.choice([0.0, 0.5]))

    stages = [StageSpec(WIDTH, [layer() for _ in range(rng.randint(0, 2))])]
    if rng.random() < 0.5:
        merge = 2 if stem is IMAGE and rng.random() < 0.5 else 1
        width = WIDTH * rng.choice([1, 1, 2])
        stages.append(StageSpec(width, [layer() for _ in range(rng.randint(0, 2))], merge))
    head = BlockSpec.of("classes", classes=3)
    return ArchSpec(stem, tuple(stages), rng.choice(DRAWN_NORMS), head)


def modules(spec, model):
    """What holds weights, in the order of the canonical spelling: for each block that adds
    something its norm, its scale and itself, and merges where they are."""
    found = []
    for stage, made, laid in zip(spec.stages, model.stages, lay_out(spec).stages, strict=True):
        found += [] if made.merge is None else [(made.merge,)]
        here = Here(laid.site.grid, stage.width, laid.site.causal, 0)
        for layer, module in zip(stage.layers, made.layers, strict=True):
            blocks = [b for b in (layer.mixer, layer.channel) if b is not None]
            shared = layer.residual == "parallel"
            parts = []
            for at, block in enumerate(blocks):
                scale = module.scales[at] if len(module.scales) else None
                norm = module.norms[0 if shared else at]
                parts.append((spelled(block, here), norm, scale, module.blocks[at]))
            if layer.residual != "post" or layer.norm == BlockSpec("none"):
                parts = [part for part in parts if part[0] is not None]
            if shared:
                parts.sort(key=lambda part: (part[0].name in CHANNEL, repr(part[0])))
            found += [part[1:] for part in parts]
    return found


def take_weights(of, given, to, made):
    """Copies the weights of `given`, the model of the spec `of`, into `made`, that of `to`."""
    for name in ("stem", "norm", "head"):
        getattr(made, name).load_state_dict(getattr(given, name).state_dict())
    for theirs, mine in zip(modules(of, given), modules(to, made), strict=True):
        for one, other in zip(theirs, mine, strict=True):
            if isinstance(one, torch.nn.Module):
                other.load_state_dict(one.state_dict())
            elif one is not None:
                other.data.copy_(one.data)


def trained(model, inputs, steps=STEPS):
    """The outputs of each step of training."""
    labels = torch.arange(len(inputs)) % 3
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    outputs = []
    for _ in range(steps):
        logits = model(inputs)
        outputs.append(logits.detach())
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(logits, labels).backward()
        optimiser.step()
    return torch.stack(outputs)


def inputs_of(spec):
    torch.manual_seed(3)
    stem = STEMS.load(spec.stem.name)
    made = stem.example(stem.config(**dict(spec.stem.settings)), 4)
    return made.double() if made.is_floating_point() else made


def assert_trains_alike(spec, other):
    torch.manual_seed(0)
    given, made = build(spec).double().train(), build(other).double().train()
    take_weights(spec, given, other, made)
    inputs = inputs_of(spec)

    torch.testing.assert_close(trained(made, inputs), trained(given, inputs), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("part", range(8))
def test_what_is_merged_trains_alike(part):
    """In all parts, at least 500 pairs."""
    rng, merged = random.Random(part), 0
    while merged < 65:
        spec = drawn(rng)
        other = canonical(spec)
        if other == spec:
            continue
        merged += 1
        assert canonical(other) == other
        assert_trains_alike(spec, other)


def image(*layers, norm="rms"):
    head = BlockSpec.of("classes", classes=3)
    return ArchSpec(IMAGE, (StageSpec(WIDTH, layers),), BlockSpec(norm), head)


MLP = BlockSpec.of("mlp", hidden=8, activation="gelu")
POOL = BlockSpec.of("pool", size=3)
FULL = {"heads": 2, "kv_heads": 2, "head_width": 4, "positions": "none", "span": 4}


def full(**changed):
    return BlockSpec.of("attention", **(FULL | changed))


def of(name, **settings):
    return image(LayerSpec(BlockSpec.of(name, **settings), None, "rms"))


APART = {
    "span": (of("attention", **FULL), of("attention", **(FULL | {"span": 3}))),
    "heads": (
        of("attention", **FULL),
        of("attention", **(FULL | {"heads": 4, "kv_heads": 4, "head_width": 2})),
    ),
    "keys": (of("attention", **FULL), of("attention", **(FULL | {"kv_heads": 1}))),
    "shared keys of a span of one": (
        of("attention", **(FULL | {"kv_heads": 1, "span": 1})),
        of("attention", **(FULL | {"heads": 1, "kv_heads": 1, "head_width": 8, "span": 1})),
    ),
    "positions": (of("attention", **FULL), of("attention", **(FULL | {"positions": "alibi"}))),
    "chunks of attention": (
        of("diag_attention", heads=2, chunk=8),
        of("diag_attention", heads=2, chunk=16),
    ),
    "chunks that are faster or slower": (
        of("retention", heads=2, expand=1, chunk=4),
        of("retention", heads=2, expand=1, chunk=8),
    ),
    "pool": (of("pool", size=5), of("pool", size=7)),
    "nothing and the token itself": (of("pool", size=1), of("identity")),
    "hidden": (of("mlp", hidden=8, activation="gelu"), of("mlp", hidden=9, activation="gelu")),
    "activation": (of("mlp", hidden=8, activation="gelu"), of("mlp", hidden=8, activation="silu")),
    "norm": (image(LayerSpec(POOL, MLP, "rms")), image(LayerSpec(POOL, MLP, "layer"))),
    "norm at the end": (image(norm="rms"), image(norm="layer")),
    "order": (
        image(LayerSpec(POOL, None, "rms"), LayerSpec(full(), None, "rms")),
        image(LayerSpec(full(), None, "rms"), LayerSpec(POOL, None, "rms")),
    ),
    "form": (
        image(LayerSpec(POOL, MLP, "rms")),
        image(LayerSpec(POOL, MLP, "rms", "parallel")),
    ),
    "post": (image(LayerSpec(POOL, MLP, "rms")), image(LayerSpec(POOL, MLP, "rms", "post"))),
    "scale": (image(LayerSpec(POOL, MLP, "rms")), image(LayerSpec(POOL, MLP, "rms", scale=1.0))),
    "depth": (
        image(LayerSpec(POOL, MLP, "rms"), LayerSpec(POOL, MLP, "rms")),
        image(LayerSpec(POOL, MLP, "rms"), LayerSpec(POOL, MLP, "scaled_rms")),
    ),
    "what depth depends on": (
        image(LayerSpec(POOL, None, "scaled_rms"), LayerSpec(None, MLP, "scaled_rms")),
        image(LayerSpec(POOL, MLP, "scaled_rms")),
    ),
    "decomposed": (
        of("manhattan", heads=2, reach=4, decomposed=False, inside=True),
        of("manhattan", heads=2, reach=4, decomposed=True, inside=True),
    ),
}


@pytest.mark.parametrize("name", APART)
def test_what_computes_something_else_stays_apart(name):
    one, other = map(canonical, APART[name])

    assert one.fingerprint() != other.fingerprint()


ALIKE = {
    "span": (of("attention", **FULL), of("attention", **(FULL | {"span": 99}))),
    "chunk": (of("diag_attention", heads=2, chunk=16), of("attention", **FULL)),
    "cut": (
        image(LayerSpec(POOL, MLP, "rms")),
        image(LayerSpec(POOL, None, "rms"), LayerSpec(None, MLP, "rms")),
    ),
    "order of branches": (
        image(LayerSpec(POOL, MLP, "rms", "parallel")),
        image(LayerSpec(MLP, POOL, "rms", "parallel")),
    ),
    "nothing": (
        image(LayerSpec(BlockSpec.of("pool", size=1), MLP, "rms")),
        image(LayerSpec(None, MLP, "rms")),
    ),
    "root of one": (
        image(LayerSpec(POOL, MLP, "scaled_rms")),
        image(LayerSpec(POOL, MLP, "rms")),
    ),
}


@pytest.mark.parametrize("name", ALIKE)
def test_what_trains_alike_is_one(name):
    one, other = map(canonical, ALIKE[name])

    assert one.fingerprint() == other.fingerprint()


def test_every_block_and_norm_is_known_to_depend_on_depth_or_not():
    names = {*BLOCKS.names(), *NORMS.names()}

    assert set(STILL) | set(OF_DEPTH) == names
    assert not set(STILL) & set(OF_DEPTH)


def test_blocks_of_others_are_left_as_they_are():
    theirs = LayerSpec(BlockSpec.of("theirs", chunk=99, size=1), None, "rms")
    spec = image(theirs, LayerSpec(None, MLP, "rms"))

    assert canonical(spec) == spec
    odd = image(LayerSpec(BlockSpec.of("attention", spam=3), MLP, "rms"))
    assert canonical(odd) == odd


def test_a_search_does_not_try_two_spellings():
    """Of the hybrids of one layer, those whose attention has another span, or none at all."""
    space = SPACES.load("hybrid_mamba").restricted(
        patch=2, width=16, norm="rms", depth=4, channel=0.5, heads=2, kv_heads=2, expand=1,
        positions="none", head_width=8, state=8, ratio=1, place="even", attention=(0.125, 0.25),
    )  # fmt: skip
    specs = [
        space.decode(g, Signature.of_images((1, 8, 8), 10))
        for g in space.all()
        if not space.broken(g)
    ]

    assert len({canonical(spec).fingerprint() for spec in specs}) < len(specs)


UNBUILDABLE = [
    of("diag_attention", heads=3, chunk=99),
    of("diag_attention", heads=0, chunk=99),
    of("pool", size=8),
    of("pool", size=True),
    of("attention", **(FULL | {"span": 1, "positions": "bogus"})),
    of("attention", **(FULL | {"span": 1, "positions": "rotary", "head_width": 3})),
    of("attention", **(FULL | {"span": 99.0})),
    of("norm_attention", heads=2, chunk=-1),
    image(LayerSpec(BlockSpec.of("pool", size=1), None, "unknown")),
]


@pytest.mark.parametrize("at", range(len(UNBUILDABLE)))
def test_what_cannot_be_built_is_left_for_build_to_refuse(at):
    spelling = canonical(UNBUILDABLE[at])

    with pytest.raises(SpecError):
        build(spelling)


@pytest.mark.parametrize("length", ["6", 0, 6.0, True])
def test_stems_that_are_none_are_left(length):
    stem = BlockSpec.of("tokens", vocabulary=11, length=length, causal=True, positions=True)
    spec = ArchSpec(stem, (StageSpec(8, (LayerSpec(full(), None, "rms"),)),), ROW, ROW)

    assert canonical(spec) == spec


def test_the_norm_behind_the_last_layer_is_of_no_layer():
    plain, scaled = (
        canonical(image(LayerSpec(POOL, MLP, "rms"), norm=n)) for n in ("rms", "scaled_rms")
    )

    assert plain == scaled
    assert build(image(LayerSpec(POOL, MLP, "rms"), norm="scaled_rms")).norm.factor == 1
