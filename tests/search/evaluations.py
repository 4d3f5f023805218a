"""Small evaluations: one layer of 16 numbers, a handful of steps."""

from dataclasses import replace

import torch

from formwright.search import ArchSpec, BlockSpec, LayerSpec
from formwright.search.budget import Budget
from formwright.search.evaluate.evaluator import Evaluation
from formwright.search.spec import Signature, StageSpec
from formwright.search.tasks import Split, Task

MLP = BlockSpec.of("mlp", hidden=16, activation="gelu")
NEXT = Signature.of_tokens(8, 12, head=BlockSpec("language"))


def attention(**settings):
    whole = {"heads": 4, "kv_heads": 4, "head_width": 4, "positions": "none", "span": 4}
    return BlockSpec.of("attention", **(whole | settings))


def arch(mixer=None, layers=1, image=(1, 8, 8), classes=10, norm="layer"):
    """Of images."""
    layer = LayerSpec(mixer or attention(), MLP, norm)
    return ArchSpec.of_images(image, classes, 2, 16, (layer,) * layers)


def tokens_arch(signature=NEXT, mixer=None, tied=False, width=8):
    """Of tokens, as a task asks for them."""
    layer = LayerSpec(mixer or attention(head_width=2), MLP, BlockSpec("rms"))
    return ArchSpec.of(signature, (StageSpec(width, (layer,)),), tied=tied)


def counting(signature=NEXT, score="accuracy", pretrain="", count=60):
    """A task: each token is the one before it, plus the first of all, of eight."""
    generator = torch.Generator().manual_seed(3)
    first, step = torch.randint(8, (2, 3 * count, 1), generator=generator)
    rows = (first + step * torch.arange(13)) % 8
    if signature.head.name == "language":
        inputs, targets = rows[:, :-1], rows[:, 1:].clone()
        targets[:, 0] = -100  # nobody can know the first step
    else:
        inputs, targets = rows[:, :12], step[:, 0]
    parts = {
        name: Split(inputs[at::3], targets[at::3])
        for at, name in enumerate(("train", "validation", "test"))
    }
    return Task("counting", signature, lambda: parts, score=score, pretrain=pretrain)


WHOLE = Evaluation(
    architecture=arch(),
    task="digits",
    budget=Budget(3),
    batch=16,
    threads=1,
    target="eager",
    seed=5,
    timeout_s=600,
)
TINY = replace(WHOLE, metrics=("quality",))
PLAIN = replace(WHOLE, architecture=arch(BlockSpec.of("pool", size=3)))
"""Compiled in less time, for what is no matter of attention."""
