"""What a trained model is worth on a split: the score of its task, over every target that is asked.

    accuracy   the share of targets that are named rightly ("micro": each target counts alike)
    bits       1 - bits per target / log2(classes): 1 is certainty, 0 what a uniform guess is worth

Batches are cut so that what the layers write fits in `MEMORY`. It must not know how the model was
trained. Next: `learn.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from ..cost import cost_of
from ..errors import EvaluationError
from ..spec import ArchSpec
from ..tasks.task import UNASKED, Split
from .failure import Deadline
from .quiet import working

CHUNK = 256  # examples judged at once, at most
MEMORY = 256 * 2**20  # bytes that the layers may write meanwhile, where one example allows


@dataclass(frozen=True)
class Score:
    """`quality` is higher for better; `details` has the same in other words."""

    quality: float
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Tally:
    """Over the targets that were asked: how many, how many named rightly, and the sum of
    -log2 of what was given to the right one."""

    asked: int
    right: int
    bits: float
    classes: int


def _accuracy(tally: Tally) -> Score:
    return Score(tally.right / tally.asked)


def _bits(tally: Tally) -> Score:
    each = tally.bits / tally.asked
    most = math.log2(max(2, tally.classes))
    return Score(1 - each / most, {"bits_per_token": each, "accuracy": tally.right / tally.asked})


SCORES: dict[str, Callable[[Tally], Score]] = {"accuracy": _accuracy, "bits": _bits}


@torch.no_grad()
def judge(
    model: Callable[[Tensor], Tensor],
    split: Split,
    deadline: Deadline,
    *,
    score: str = "accuracy",
    chunk: int = CHUNK,
) -> Score | None:
    """The score of `model`, which is in eval mode already; None where an output is not finite.
    Raises EvaluationError where nothing is asked, or the time is up."""
    asked = right = classes = 0
    bits = 0.0
    for at in range(0, len(split.targets), chunk):
        deadline.check("validating")
        with working():
            outputs = model(split.inputs[at : at + chunk])
            if not torch.isfinite(outputs).all():
                return None
            classes = outputs.shape[-1]
            logits, targets = outputs.flatten(0, -2), split.targets[at : at + chunk].flatten()
            logits, targets = logits[targets != UNASKED], targets[targets != UNASKED]
            asked += len(targets)
            right += int((logits.argmax(-1) == targets).sum())
            bits += float(F.cross_entropy(logits, targets, reduction="sum")) / math.log(2)
    if not asked:
        raise EvaluationError("the split asks for nothing: every target is UNASKED")
    return SCORES[score](Tally(asked, right, bits, classes))


def chunk_of(spec: ArchSpec) -> int:
    """How many examples are judged at once: by memory, from what the layers write, in fp32."""
    return max(1, min(CHUNK, MEMORY // max(1, 4 * cost_of(spec).activations)))
