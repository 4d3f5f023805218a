"""The quality of a candidate: trained with each learning rate, judged on the validation split.

Each rate is a whole training of its own, self-pretraining included, from the same weights on the
same batches; the best quality counts. Which rate is best depends on the mixer, and recurrent ones
learn recall in a narrow window only (arXiv 2508.19029), so one rate for all ranks them by luck. It
must not know latencies. Next: `course.py`, `shared.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import EvaluationError
from ..tasks import TASKS
from ..tasks.task import Split, Task
from .checkpoint import Checkpoint, key
from .course import Course, Phase, carry_out, phases_of
from .evaluator import Evaluation
from .failure import Deadline
from .machine import using_threads
from .schedule import step_flops
from .score import Score, chunk_of, judge
from .shared import network
from .train import Diverged, fresh, supervised


@dataclass(frozen=True)
class Learnt:
    """What became of one rate. `model` is what the candidate says, in eval mode, and `module()` is
    it as a module of its own; `unkept` says why no checkpoint could be written, if so. `flops` is
    what was done here."""

    rate: float
    score: Score
    course: Course
    model: Callable[[Tensor], Tensor]
    module: Callable[[], nn.Module]
    unkept: str
    flops: int

    @property
    def quality(self) -> float:
        return self.score.quality

    def to_dict(self) -> dict[str, Any]:
        last = self.course.last
        row = {"rate": self.rate, "quality": self.quality, "steps": last.step}
        row |= {"train_loss": last.loss, **self.score.details}
        return row | ({"resumed": self.course.resumed} if self.course.resumed else {})


@dataclass(frozen=True)
class Trained:
    """What became of every rate: those that learnt, the best first, and why others did not.
    `seconds` are by the clock."""

    learnt: Sequence[Learnt]
    failed: Mapping[float, str]
    seconds: float

    @property
    def best(self) -> Learnt:
        return self.learnt[0]

    @property
    def flops(self) -> int:
        """Operations of the steps that were made here, self-pretraining included; where one of many
        sub-models is trained at a time, those of the whole."""
        return sum(learnt.flops for learnt in self.learnt)


def learn(
    evaluation: Evaluation, task: Task, splits: Mapping[str, Split], deadline: Deadline
) -> Trained:
    """Trains on the split `train`, to the share `until` of the budget, and judges on `validation`;
    nothing looks at any other. Equal evaluations give equal results on one machine, from whichever
    checkpoint they went on. Raises EvaluationError if it diverges with every rate or the time is
    up."""
    if evaluation.pretrain and not task.pretrain:
        raise EvaluationError(f"the task {task.name} has no self-pretraining")
    started = time.monotonic()
    learnt, failed = [], {}
    for rate in evaluation.rates:
        try:
            learnt.append(_with(rate, evaluation, task, splits, deadline))
        except Diverged as error:
            failed[rate] = str(error)
    if not learnt:
        if len(failed) == 1:
            raise Diverged(*failed.values())
        raise Diverged("; ".join(f"{why} with {rate:g}" for rate, why in failed.items()))
    learnt.sort(key=lambda one: -one.quality)  # of equal ones, the first that was asked for
    return Trained(learnt, failed, time.monotonic() - started)


def fitted(evaluation: Evaluation) -> tuple[nn.Module, Learnt]:
    """The trained candidate as a module of its own, in eval mode, and how it became one: from its
    checkpoints if they are there, else trained again, to the same weights. Raises EvaluationError
    as `learn` does."""
    threads, randomness = using_threads(evaluation.threads), torch.random.fork_rng(devices=[])
    with threads, randomness, torch.enable_grad():
        task = TASKS.load(evaluation.task, "task")
        best = learn(evaluation, task, task.load(), Deadline.after(evaluation.timeout_s)).best
        return best.module().eval(), best


def _with(
    rate: float,
    evaluation: Evaluation,
    task: Task,
    splits: Mapping[str, Split],
    deadline: Deadline,
) -> Learnt:
    spec, split = evaluation.architecture, splits["train"]
    model: Callable[[Tensor], Tensor]
    module: Callable[[], nn.Module]
    if evaluation.weights == "shared":
        whole = network(evaluation, task, split, rate, deadline)
        model, module = partial(whole.net.run, spec), partial(whole.net.extract, spec)
        course, unkept, trained = whole.course, whole.unkept, whole.net.spec
    else:

        def make() -> list[Phase]:
            made = fresh(spec, evaluation.seed)
            return phases_of(made, evaluation, split, rate, supervised(made, split))

        checkpoint = Checkpoint(evaluation.checkpoint, key(evaluation, rate), task.data_hash())
        course = carry_out(make, checkpoint, deadline)
        model = own = course.last.module.eval()
        module, unkept, trained = (lambda: own), checkpoint.error, spec
    chunk = chunk_of(spec)
    score = judge(model, splits["validation"], deadline, score=task.score, chunk=chunk)
    if score is None:
        raise Diverged(f"diverged at step {course.last.step}")
    flops = sum(course.ran.values()) * step_flops(trained, evaluation.batch)
    return Learnt(rate, score, course, model, module, unkept, flops)
