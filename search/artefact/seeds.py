"""One architecture trained as its search trains, once for each of several seeds.

The first is the seed of the search itself, so that its quality is that of the trial, bit for bit on
the same machine; the next are those of searches whose seeds follow. It must not know the folder
that an artefact is kept in, and looks at no split but `train` and `validation`. Next:
`../evaluate/learn.py`.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from ..evaluate.evaluator import Evaluation
from ..evaluate.failure import Deadline
from ..evaluate.learn import learn
from ..evaluate.shared import whole_of
from ..evaluate.stages import Subject
from ..model import Model
from ..run.ladder import Rung
from ..run.loop import evaluation as evaluation_of
from ..search_spec import SearchSpec
from ..spec import ArchSpec
from ..supernet import Supernet
from ..trial import Trial

SEEDS = 2**63  # so many there are


@dataclass(frozen=True)
class Grown:
    """What became of seed `number`, from 0: the model with the best of the rates, in evaluation,
    its score on the validation split, and `record`, JSON-ready."""

    number: int
    model: Model
    quality: float
    record: dict[str, Any]


def evaluations(architecture: ArchSpec, spec: SearchSpec, seeds: int) -> list[Evaluation]:
    """What the search would train, with its own seed and those that follow."""
    whole = Rung(1.0, ("quality",), "whole")
    trial = Trial(0, {}, architecture)
    own = (replace(spec, seed=(spec.seed + more) % SEEDS) for more in range(seeds))
    return [evaluation_of(of, trial, whole) for of in own]


def grow(evaluation: Evaluation, number: int, subject: Subject) -> Grown:
    """Trains within the time limit of the evaluation; goes on where a killed training was. Raises
    Diverged where no rate teaches it anything, EvaluationError if the time is up."""
    deadline = Deadline.after(evaluation.timeout_s)
    trained = learn(evaluation, subject.task, subject.splits, deadline)
    best = trained.best
    record = {
        "seed": evaluation.seed,
        **best.to_dict(),
        "rates": [learnt.to_dict() for learnt in trained.learnt],
        "failed": {f"{rate:g}": why for rate, why in trained.failed.items()},
        "training_flops": trained.flops,
        "seconds": round(trained.seconds, 3),
    }
    module = best.course.last.module
    if evaluation.weights == "shared":
        whole = Supernet(whole_of(evaluation.architecture).spec, cast(Model, module))
        module = whole.extract(evaluation.architecture)
    return Grown(number, cast(Model, module).eval(), best.quality, record)


def chosen(grown: Sequence[Grown]) -> Grown:
    """The best on the validation split; of equal ones, the first."""
    return max(grown, key=lambda one: one.quality)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Over seeds; `std` is that of a sample, None of one value.

    >>> spread([1.0, 2.0, 3.0])["mean"], spread([1.0, 2.0, 3.0])["std"], spread([1.0])["std"]
    (2.0, 1.0, None)
    """
    return {
        "values": list(values),
        "n": len(values),
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
    }
