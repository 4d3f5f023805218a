"""The quality of a candidate: trained for a fixed number of steps, judged on the validation split.

The recipe is the same for every candidate. It must not know what is searched nor how the model was
made. Next: `latency.py`, the other half.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import EvaluationError
from ..tasks.task import Split
from .failure import Deadline
from .quiet import working

# The highest learning rate. One for all candidates: a search that also tuned it would compare
# luck. After 300 steps of 64 on digits 3e-3 has not taught a narrow pooling model much, while at
# 2e-2 deep attention gets worse; between them every kind of candidate learns.
LR = 6e-3
WARM_UP = 0.1  # of the steps
WEIGHT_DECAY = 0.05
CLIP = 1.0
LAST = 10  # the loss that is reported is the mean over so many steps at the end
CHUNK = 256  # images judged at once


@dataclass(frozen=True)
class TrainResult:
    """`quality` is the accuracy on the whole validation split, `loss` the training loss at the
    end, `seconds` by the clock, waiting for others' measurements included."""

    quality: float
    loss: float
    steps: int
    seconds: float


def train(
    model: nn.Module,
    split: Split,
    validation: Split,
    *,
    steps: int,
    batch: int,
    seed: int,
    deadline: Deadline,
) -> TrainResult:
    """Trains in place; leaves the model in eval mode.

    Equal seeds give equal results on one machine with one number of threads; a model that is
    random itself (dropout) draws from torch's global generator, which is the caller's. Raises
    EvaluationError if it diverges or the time is up.
    """
    started = time.monotonic()
    optimizer = _optimizer(model)
    batches = _batches(len(split.targets), batch, torch.Generator().manual_seed(seed))
    losses: list[float] = []
    model.train()
    for step in range(steps):
        deadline.check(f"training, after {step} of {steps} steps")
        with working():
            picked = next(batches)
            _set_rate(optimizer, step, steps)
            loss = _step(model, optimizer, split.inputs[picked], split.targets[picked])
        if loss is None:
            raise EvaluationError(f"diverged at step {step + 1}")
        losses.append(loss)
    quality = _accuracy(model.eval(), validation, deadline)
    if quality is None:
        raise EvaluationError(f"diverged at step {steps}")
    last = losses[-LAST:]
    return TrainResult(quality, sum(last) / len(last), steps, time.monotonic() - started)


def rate(step: int, steps: int) -> float:
    """The learning rate: a linear warm-up, then a cosine down to zero.

    >>> [round(rate(step, 100) / LR, 2) for step in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return LR * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return LR * (1 + math.cos(math.pi * done)) / 2


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    # gains and biases are no directions in space: pulling them to zero only hurts
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LR, fused=True)  # one kernel, not ten calls a parameter


def _set_rate(optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate(step, steps)


def _batches(count: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of one batch after the other, from one shuffled pass over the data after the
    other."""
    order = torch.empty(0, dtype=torch.long)
    while True:
        while len(order) < batch:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[:batch]
        order = order[batch:]


def _step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> float | None:
    """The loss before the step, or None if it or its gradient is not finite."""
    loss = F.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    value = loss.item()
    if not (math.isfinite(value) and math.isfinite(norm.item())):
        return None
    optimizer.step()
    return value


@torch.no_grad()
def _accuracy(model: nn.Module, split: Split, deadline: Deadline) -> float | None:
    """The share of images that are classified rightly; None where an output is not finite."""
    right = 0
    for at in range(0, len(split.targets), CHUNK):
        deadline.check("validating")
        with working():
            scores = model(split.inputs[at : at + CHUNK])
            if not torch.isfinite(scores).all():
                return None
            right += int((scores.argmax(-1) == split.targets[at : at + CHUNK]).sum())
    return right / len(split.targets)
