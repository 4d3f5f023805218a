"""The training of a candidate: the same recipe for each, and where it stopped it goes on.

Everything that the next step depends on is in `Training.state`, so that a training that was cut
into pieces, by a rung or by a kill, ends bit for bit as one that was not. It must not know what is
searched nor how the model was made. Next: `course.py` keeps it on disk, `score.py` judges it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import EvaluationError
from ..model import Model, build
from ..search_spec import RATE
from ..spec import ArchSpec
from ..tasks.task import UNASKED, Split
from .failure import Deadline
from .quiet import working
from .schedule import Plan

# The rate where no other is asked for: after 300 steps of 64 on digits 3e-3 has not taught a narrow
# pooling model much, while at 2e-2 deep attention gets worse; between them every kind of candidate
# learns.
LR = RATE
WEIGHT_DECAY = 0.05
CLIP = 1.0
LAST = 10  # the loss that is reported is the mean over so many steps at the end

Descend = Callable[[Tensor, int], float]
"""The rows of a batch, and which step it is -> the loss; its gradients are added to those that are
there. It draws from torch's global generator, or by the step."""


class Diverged(EvaluationError):
    """A loss, a gradient or an output is not finite."""


@dataclass(frozen=True)
class Recipe:
    """`plan` is the whole training, of which the share `until` is done; the schedule is that of the
    whole. `rate` is the highest learning rate, `seed` that of the batches."""

    plan: Plan
    batch: int
    seed: int
    rate: float = LR
    until: float = 1.0


class Training:
    """A module, its optimiser and its batches, between two steps. `elapsed_s` is the time of its
    steps alone, without waiting; `before_s` what it was before the last one."""

    def __init__(self, module: nn.Module, examples: int, recipe: Recipe) -> None:
        self.module, self.recipe = module, recipe
        self.optimizer = _optimizer(module, recipe.rate)
        self.batches = Batches(examples, recipe.batch, recipe.seed)
        self.step, self.elapsed_s, self.before_s = 0, 0.0, 0.0
        self.losses: list[float] = []

    @property
    def over(self) -> bool:
        return self.recipe.plan.over(self.recipe.until, self.step, self.elapsed_s)

    @property
    def beyond(self) -> bool:
        """Whether it was over before the last step."""
        return self.recipe.plan.over(self.recipe.until, self.step - 1, self.before_s)

    @property
    def loss(self) -> float:
        """The mean of the last ones."""
        return sum(self.losses) / len(self.losses)

    def state(self) -> dict[str, Any]:
        """All of it, torch's global generator included: a model may draw."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "batches": self.batches.state(),
            "drawn": torch.get_rng_state(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "before_s": self.before_s,
            "losses": self.losses,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """The inverse, for a module of the same architecture."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.restore(state["batches"])
        torch.set_rng_state(state["drawn"])
        self.step = int(state["step"])
        self.elapsed_s, self.before_s = float(state["elapsed_s"]), float(state["before_s"])
        self.losses = [float(loss) for loss in state["losses"]]

    def go_on(
        self, descend: Descend, deadline: Deadline, keep: Callable[[], None] = lambda: None
    ) -> None:
        """Trains until the recipe says; `keep` is called after each step. Raises EvaluationError if
        it diverges or the time is up."""
        recipe, of = self.recipe, self._length()
        self.module.train()
        while not self.over:
            deadline.check(f"training, after {self.step}{of}")
            with working():
                started = time.perf_counter()
                highest = recipe.plan.rate(recipe.rate, self.step, self.elapsed_s)
                for group in self.optimizer.param_groups:
                    group["lr"] = highest
                loss = self._step(descend)
                if loss is None:
                    raise Diverged(f"diverged at step {self.step + 1}")
                self.losses = [*self.losses, loss][-LAST:]
                self.step, self.before_s = self.step + 1, self.elapsed_s
                self.elapsed_s += time.perf_counter() - started
                keep()

    def _step(self, descend: Descend) -> float | None:
        """The loss before the step, or None if it or its gradient is not finite."""
        self.optimizer.zero_grad()
        loss = descend(self.batches.draw(), self.step)
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), CLIP)
        if not (math.isfinite(loss) and math.isfinite(norm.item())):
            return None
        self.optimizer.step()
        return loss

    def _length(self) -> str:
        plan = self.recipe.plan
        return " steps" if plan.seconds else f" of {plan.steps} steps"


class Batches:
    """Rows of one batch after the other, from one shuffled pass over the data after the other."""

    def __init__(self, examples: int, batch: int, seed: int) -> None:
        self.examples, self.batch = examples, batch
        self.generator = torch.Generator().manual_seed(seed)
        self.order = torch.empty(0, dtype=torch.long)

    def draw(self) -> Tensor:
        while len(self.order) < self.batch:
            drawn = torch.randperm(self.examples, generator=self.generator)
            self.order = torch.cat([self.order, drawn])
        picked, self.order = self.order[: self.batch], self.order[self.batch :]
        return picked

    def state(self) -> dict[str, Tensor]:
        return {"generator": self.generator.get_state(), "order": self.order.clone()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.generator.set_state(state["generator"])
        self.order = state["order"]


def fresh(spec: ArchSpec, seed: int) -> Model:
    """The model as it is before training. What it draws later, it draws behind this."""
    torch.default_generator.manual_seed(seed)
    return build(spec)


def supervised(model: Callable[[Tensor], Tensor], split: Split) -> Descend:
    """What the targets of a split say about `model`."""

    def descend(picked: Tensor, step: int) -> float:
        loss = cross_entropy(model(split.inputs[picked]), split.targets[picked])
        loss.backward()
        return loss.item()

    return descend


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean over the targets that are asked. outputs [.., C], targets [..]"""
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), ignore_index=UNASKED)


def _optimizer(module: nn.Module, rate: float) -> torch.optim.Optimizer:
    trained = [p for p in module.parameters() if p.requires_grad]
    # gains and biases are no directions in space: pulling them to zero only hurts
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, fused=True)  # one kernel, not ten calls a parameter
