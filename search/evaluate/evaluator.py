"""One evaluation, whole: build, train, compile, measure.

`Evaluation` is everything the numbers depend on, so equal ones give equal quality on one machine.
It must not know trials or workers; importing it loads no torch, for the loop that makes evaluations
needs none. Next: `train.py`, `latency.py`.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import EvaluationError
from ..objective import Measurement
from ..spec import ArchSpec
from .failure import Deadline, reason
from .quiet import working

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..tasks import Split
    from .latency import Latency
    from .train import TrainResult

# The number of threads, random numbers and compiled code belong to the process.
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Evaluation:
    """What a worker is given. `architecture` is trained on `task` for `steps` steps of `batch`
    examples, compiled for `target` and measured on one batch of validation images, all with
    `threads` threads and within `timeout_s` seconds."""

    architecture: ArchSpec
    task: str
    steps: int
    batch: int
    threads: int
    target: str
    seed: int
    timeout_s: int


def evaluation_seed(user_seed: int, fingerprint: str, rung: int = 0) -> int:
    """The seed of one architecture: it depends on nothing that happened before in a search.

    >>> evaluation_seed(0, "a1:00") == evaluation_seed(0, "a1:00", rung=0)
    True
    """
    digest = hashlib.sha256(f"{user_seed}|{fingerprint}|{rung}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 2**63


def evaluate(evaluation: Evaluation) -> Measurement:
    """Measures one candidate; a process does one at a time, and the others wait.

    Raises EvaluationError with one line for people, whatever is wrong with the candidate. The
    time limit is looked at between steps: code that never returns is for the pool to end.
    """
    with _one_at_a_time:
        try:
            with working():  # loading torch is work too, but not the candidate's
                _load()
            return _evaluate(evaluation, Deadline.after(evaluation.timeout_s))
        except EvaluationError:
            raise
        except Exception as error:
            raise EvaluationError(reason(error)) from error


def _evaluate(evaluation: Evaluation, deadline: Deadline) -> Measurement:
    import torch

    from .latency import check_target, measure
    from .machine import using_threads
    from .train import train

    threads, randomness = using_threads(evaluation.threads), torch.random.fork_rng(devices=[])
    with threads, randomness, torch.enable_grad():
        with working():
            check_target(evaluation.target)
            model, train_split, validation = _prepare(evaluation)
        params = sum(p.numel() for p in model.parameters() if p.requires_grad)
        trained = train(
            model,
            train_split,
            validation,
            steps=evaluation.steps,
            batch=evaluation.batch,
            seed=evaluation.seed,
            deadline=deadline,
        )
        latency = measure(
            model,
            _batch_of(validation.inputs, evaluation.batch),
            target=evaluation.target,
            threads=evaluation.threads,
            deadline=deadline,
        )
    values = {
        "quality": trained.quality,
        "latency_ms": latency.median_ms,
        "latency_p95_ms": latency.p95_ms,
        "latency_ratio": latency.ratio,
        "params": params,
    }
    return Measurement(values, _details(evaluation, trained, latency))


def _prepare(evaluation: Evaluation) -> tuple[nn.Module, Split, Split]:
    """The model as it is before training, and the data. Raises EvaluationError if they do not
    fit."""
    import torch

    from ..model import build
    from ..tasks import TASKS

    architecture, task = evaluation.architecture, TASKS.load(evaluation.task, "task")
    made, wanted = architecture.signature, task.signature
    if made is None:
        raise EvaluationError(f"the architecture is no classifier of images; {task.name} wants one")
    if made != wanted:
        raise EvaluationError(
            f"the architecture is made for images {made.image} in {made.classes} classes; "
            f"{task.name} has {wanted.image} in {wanted.classes}"
        )
    torch.default_generator.manual_seed(evaluation.seed)
    splits = task.load()
    torch.default_generator.manual_seed(evaluation.seed)  # whatever loading has drawn
    return build(architecture), splits["train"], splits["validation"]


def _batch_of(images: Tensor, size: int) -> Tensor:
    """`size` images: the first, from the beginning again where there are not enough."""
    import torch

    return images[torch.arange(size) % len(images)]


def _load() -> None:
    from . import latency, train  # noqa: F401


def _details(evaluation: Evaluation, trained: TrainResult, latency: Latency) -> dict[str, Any]:
    from .latency import REFERENCE
    from .train import LR

    return {
        "machine": latency.machine.to_dict(),
        "task": evaluation.task,
        "target": evaluation.target,
        "seed": evaluation.seed,
        "steps": trained.steps,
        "batch": evaluation.batch,
        "lr": LR,
        "train_loss": trained.loss,
        "seconds": {
            "train": round(trained.seconds, 3),
            "compile": round(latency.compile_s, 3),
            "measure": round(latency.measure_s, 3),
        },
        "latency": {
            "samples": latency.samples,
            "batch": latency.batch,
            "reference": REFERENCE,
            "reference_ms": latency.reference_ms,
        },
        "report": latency.report,
    }
