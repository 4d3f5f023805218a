"""One training, whole: self-pretraining if it is asked for, then the task; kept on disk as it goes,
so that whoever comes next goes on.

It must not know how a model is judged. Next: `learn.py`, `shared.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..model import Model
from ..spec import ArchSpec
from ..tasks.task import Split
from .checkpoint import Checkpoint
from .evaluator import Evaluation, evaluation_seed
from .failure import Deadline
from .pretrain import Pretrainer
from .quiet import working
from .schedule import Plan, plan
from .train import Descend, Recipe, Training


@dataclass
class Phase:
    """A training under a name, how it descends, and what is done behind it."""

    name: str
    training: Training
    descend: Descend
    then: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Course:
    """What was done: the phases, how many steps of each were made here, and where it went on from
    (empty: from the start)."""

    phases: Sequence[Phase]
    ran: Mapping[str, int]
    resumed: str

    @property
    def last(self) -> Training:
        return self.phases[-1].training


def phases_of(
    model: Model, evaluation: Evaluation, split: Split, rate: float, descend: Descend
) -> list[Phase]:
    """Both phases of a model as it is before training; `descend` is how the second one does."""
    spec, examples = evaluation.architecture, len(split.targets)
    length, seed = plan(evaluation.budget, spec, evaluation.batch), evaluation.seed
    recipe = Recipe(length, evaluation.batch, seed, rate, evaluation.until)
    phases = [Phase("train", Training(model, examples, recipe), descend)]
    if evaluation.pretrain:
        other = evaluation_seed(seed, "pretrain")
        recipe = Recipe(Plan(evaluation.pretrain), evaluation.batch, other, rate)
        phases.insert(0, _pretraining(model, spec, split, recipe))
    return phases


def _pretraining(model: Model, spec: ArchSpec, split: Split, recipe: Recipe) -> Phase:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)
        pretrainer = Pretrainer(model, spec)
    training = Training(pretrainer, len(split.targets), recipe)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def descend(picked: Tensor, step: int) -> float:
        loss = pretrainer.loss(split.inputs[picked], training.batches.generator)
        loss.backward()
        return loss.item()

    @torch.no_grad()
    def then() -> None:
        """Statistics of inputs with holes, and counts of calls, are not those of the task."""
        for name, buffer in model.named_buffers():
            buffer.copy_(before[name])
        model.zero_grad()

    return Phase("pretrain", training, descend, then)


def carry_out(
    make: Callable[[], Sequence[Phase]], checkpoint: Checkpoint, deadline: Deadline
) -> Course:
    """Trains phase after phase, from where `checkpoint` was, to where their recipes say.

    `make` makes all of it anew, seeds torch's global generator included; it is asked again where a
    checkpoint does not fit. One that is beyond the recipe stays as it is, and the way there is gone
    from the start. Raises EvaluationError as `Training.go_on` does.
    """
    with working():
        phases = make()
        kept = checkpoint.load()
        at = _restored(phases, kept) if kept else 0
        if at is None:
            phases, at, kept = make(), 0, None
        elif phases[at].training.beyond:
            phases, at, kept, checkpoint = make(), 0, None, Checkpoint("", "")
    resumed = f"{phases[at].name}, step {phases[at].training.step}" if kept else ""
    ran = {}
    for phase in phases[at:]:
        begun = phase.training.step
        phase.training.go_on(phase.descend, deadline, partial(_keep, checkpoint, phase))
        ran[phase.name] = phase.training.step - begun
        phase.then()
    if ran[phases[-1].name]:
        with working():
            _keep(checkpoint, phases[-1], due=True)
    return Course(phases, ran, resumed)


def _restored(phases: Sequence[Phase], kept: Mapping[str, Any]) -> int | None:
    """Which phase now is as it was kept; None if that is of no use."""
    try:
        at = [phase.name for phase in phases].index(kept["phase"])
        phases[at].training.restore(kept["training"])
    except Exception:  # a block of the same name was another one when it was written
        return None
    return at


def _keep(checkpoint: Checkpoint, phase: Phase, *, due: bool = False) -> None:
    if due or checkpoint.due:
        checkpoint.save({"phase": phase.name, "training": phase.training.state()})
