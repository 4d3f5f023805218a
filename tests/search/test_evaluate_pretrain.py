"""Self-pretraining: what is asked, what nobody sees, and what is kept."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from formwright.search import ArchSpec, BlockSpec, EvaluationError, LayerSpec, build
from formwright.search.evaluate.course import phases_of
from formwright.search.evaluate.failure import Deadline
from formwright.search.evaluate.learn import learn
from formwright.search.evaluate.pretrain import PIECES, Pretrainer
from formwright.search.evaluate.train import fresh
from formwright.search.layout import lay_out
from formwright.search.model import Merge
from formwright.search.spec import Signature, StageSpec
from formwright.search.tasks import TASKS, Split

from .evaluations import MLP, NEXT, TINY, arch, attention, counting, tokens_arch

LATER = Deadline(math.inf, 600)
ONE_CLASS = BlockSpec.of("classes", classes=8)
BOTH_WAYS = Signature.of_tokens(8, 12, head=ONE_CLASS, causal=False)
SERIES = Signature.of_series(2, 12, head=ONE_CLASS)


def staged(signature, patch=1):
    """The second stage has one token for each two, in each direction."""
    layer = LayerSpec(None, MLP, BlockSpec("rms"))
    return ArchSpec.of(signature, (StageSpec(6, (layer,)), StageSpec(8, (layer,), 2)), patch=patch)


def inputs_of(spec, batch=3):
    torch.manual_seed(1)
    layout = lay_out(spec)
    return layout.stem.example(layout.stem_config, batch), layout.stem_config


STEMS = {
    "image": arch(),
    "image, pixels": staged(Signature.of_images((2, 4, 8), 3)),
    "series": staged(SERIES, patch=3),
    "tokens": tokens_arch(BOTH_WAYS),
}


@pytest.mark.parametrize("spec", STEMS.values(), ids=list(STEMS))
def test_pieces_are_what_the_stem_makes_its_tokens_of(spec):
    inputs, config = inputs_of(spec)
    pieces, stem = PIECES[spec.stem.name], build(spec).stem
    cut = pieces.cut(config, inputs)
    tokens = stem(inputs)
    assert cut.shape[:2] == tokens.shape[:2]
    if not pieces.kinds(config):
        assert cut.shape[2] == pieces.numbers(config)
    masked = torch.rand(cut.shape[:2]) < 0.4
    blank = pieces.blank(config, inputs, masked)
    after = pieces.cut(config, blank)
    assert torch.equal(after[~masked], cut[~masked])
    assert not after[masked].any()
    same = (cut == after).flatten(2).all(-1) if cut.dim() == 3 else cut == after
    assert torch.equal((stem(blank) == tokens).all(-1), same)  # a token depends on its piece alone


@pytest.mark.parametrize("name", ["image, pixels", "series"])
def test_a_merged_token_answers_for_all_it_was_made_of(name):
    spec = STEMS[name]
    model = build(spec)
    pretrainer = Pretrainer(model, spec)

    class Gathered(nn.Module):
        def __init__(self, merge: Merge) -> None:
            super().__init__()
            self.merge = merge

        def forward(self, x, real):
            return self.merge._gathered(x), real

    class Same(nn.Module):
        def forward(self, x, real=None):
            return x

    pretrainer.stages = nn.ModuleList([Gathered(model.stages[1].merge)])
    pretrainer.norm, pretrainer.head = Same(), nn.Identity()
    tokens = lay_out(spec).stages[0].site.tokens
    x = torch.randn(3, tokens, pretrainer.each)
    assert torch.equal(pretrainer._said(x), x)


def test_the_share_that_is_masked():
    seen = {}
    for name, spec in STEMS.items():
        inputs, _ = inputs_of(spec, 5)
        pretrainer = Pretrainer(build(spec), spec)
        whole = pretrainer.pieces

        def blank(config, inputs, masked, name=name, whole=whole):
            seen[name] = masked
            return whole.blank(config, inputs, masked)

        pretrainer.pieces = replace(whole, blank=blank)
        pretrainer.loss(inputs, torch.Generator().manual_seed(0)).backward()
        assert all(p.grad is not None for p in pretrainer.stem.parameters())
    counts = {name: set(masked.sum(1).tolist()) for name, masked in seen.items()}
    assert counts == {"image": {8}, "image, pixels": {16}, "series": {2}, "tokens": {2}}
    assert len({tuple(row) for row in seen["image"].tolist()}) == 5


def test_of_what_is_masked_nothing_is_read():
    spec = STEMS["image"]
    inputs, _ = inputs_of(spec, 4)
    pretrainer = Pretrainer(build(spec), spec)
    read = []
    pretrainer.stem.register_forward_pre_hook(lambda module, given: read.append(given[0]))
    for given in (inputs, inputs + 1):
        pretrainer.loss(given, torch.Generator().manual_seed(0))
    both = (read[0] == 0) & (read[1] == 0)
    assert both.float().mean() == 0.5  # the same half, whatever was there


def test_a_causal_model_tells_the_next_token():
    spec = tokens_arch()
    inputs, _ = inputs_of(spec, 4)
    pretrainer = Pretrainer(build(spec), spec)
    loss = pretrainer.loss(inputs, torch.Generator())
    said = pretrainer._said(pretrainer.stem(inputs)).log_softmax(-1)
    by_hand = [said[b, t, inputs[b, t + 1]] for b in range(4) for t in range(11)]
    torch.testing.assert_close(loss, -torch.stack(by_hand).mean())


def pretrained(spec, split, steps=6):
    """The phase of a fresh model, gone through, and what the model was before."""
    evaluation = replace(TINY, architecture=spec, pretrain=steps)
    model, before = fresh(spec, 5), fresh(spec, 5)
    phase = phases_of(model, evaluation, split, 6e-3, lambda picked, step: 0.0)[0]
    phase.training.go_on(phase.descend, LATER)
    phase.then()
    return phase.training, model, before


def test_weights_of_the_trunk_are_kept_and_nothing_else():
    spec = arch(norm=BlockSpec.of("prepbn", steps=4))
    _, model, before = pretrained(spec, TASKS.load("digits").load()["train"])
    was = before.state_dict()
    buffers = dict(model.named_buffers())
    changed = {name for name, now in model.state_dict().items() if not torch.equal(now, was[name])}
    trunk = {name for name, _ in model.named_parameters() if not name.startswith("head.")}
    assert buffers
    assert changed == trunk
    assert all(p.grad is None for p in model.parameters())


def test_targets_are_never_seen():
    split = TASKS.load("digits").load()["train"]
    others = Split(split.inputs, torch.full_like(split.targets, -100))
    first, second = (pretrained(arch(), of)[1].state_dict() for of in (split, others))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("signature", [NEXT, BOTH_WAYS], ids=["next", "masked"])
def test_it_learns_what_the_inputs_look_like(signature):
    spec = tokens_arch(signature, mixer=attention(heads=2, kv_heads=2, head_width=4), width=16)
    split = counting(signature, count=400).load()["train"]
    start = pretrained(spec, split, steps=5)[0].loss
    assert pretrained(spec, split, steps=150)[0].loss < 0.8 * start


def test_what_cannot_be_pretrained_is_told():
    tasks = {"digits": TASKS.load("digits"), "counting": counting()}
    evaluation = replace(TINY, pretrain=3, architecture=tokens_arch())
    with pytest.raises(EvaluationError, match="the task counting has no self-pretraining"):
        learn(evaluation, tasks["counting"], tasks["counting"].load(), LATER)
    spec = replace(arch(), stem=BlockSpec("sounds"))
    with pytest.raises(ValueError, match="sounds"):
        Pretrainer(build(arch()), spec)
