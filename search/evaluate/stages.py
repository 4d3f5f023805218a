"""The stages of an evaluation, the cheapest first, and what each one measures.

After each stage every constraint that can be decided is; the first that is broken ends the
evaluation, so that nothing dear is done for a candidate that cannot be wanted. They do not depend
on each other: each makes its own model of the candidate, from the same seed. They must not know
trials. Next: `learn.py`, `latency.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..cost import cost_of
from ..errors import EvaluationError
from ..objective import Constraint, Measurement
from ..tasks import TASKS
from ..tasks.task import Split, Task
from .evaluator import Evaluation
from .failure import Deadline
from .learn import Trained, learn
from .machine import machine
from .quiet import working
from .schedule import step_flops
from .train import fresh

FP32 = 4  # bytes
LEAST = 0.01  # of a prediction, however wrong it may be


class Subject:
    """What all stages are about. Raises EvaluationError where task and architecture do not fit."""

    def __init__(self, evaluation: Evaluation, deadline: Deadline) -> None:
        self.evaluation, self.deadline = evaluation, deadline
        self.task: Task = TASKS.load(evaluation.task, "task")
        made, wanted = evaluation.architecture.signature, self.task.signature
        if made != wanted:
            raise EvaluationError(
                f"the architecture is made for {made}; {self.task.name} has {wanted}"
            )

    @cached_property
    def splits(self) -> Mapping[str, Split]:
        with working(), torch.random.fork_rng(devices=[]):  # whatever loading draws
            torch.default_generator.manual_seed(self.evaluation.seed)
            return self.task.load()


@dataclass(frozen=True)
class Found:
    """`values` that a stage measured, `details` for the record. A constraint is broken where both
    ends of what is `sure` break it: the values themselves, unless more training or a measurement
    may yet change them."""

    values: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)
    sure: tuple[Mapping[str, float], Mapping[str, float]] | None = None


@dataclass(frozen=True)
class Stage:
    """`run` measures `metrics`; it is run if one of them is wanted, or `free`."""

    name: str
    metrics: tuple[str, ...]
    run: Callable[[Subject], Found]
    free: bool = False


def _counted(subject: Subject) -> Found:
    cost = cost_of(subject.evaluation.architecture)
    values = {"params": cost.params, "flops": cost.flops}
    values |= {"activation_bytes": FP32 * cost.activations, "state_bytes": FP32 * cost.state}
    return Found(values)


def _latency(subject: Subject) -> Found:
    evaluation = subject.evaluation
    if evaluation.latency == "layers":
        return _predicted(subject)
    from .latency import check_target, measure
    from .layer_latency import record

    check_target(evaluation.target)
    found = measure(
        *_compilable(subject),
        target=evaluation.target,
        threads=evaluation.threads,
        deadline=subject.deadline,
        wanted=evaluation.metrics,
    )
    details = {
        "machine": found.machine.to_dict(),
        "seconds": {"compile": round(found.compile_s, 3), "measure": round(found.measure_s, 3)},
        "latency": {"predicted": False, **found.record()},
        "report": found.report,
    }
    with suppress(EvaluationError):  # then later predictions are as good as they were
        record(evaluation.architecture, found)
    return Found(found.values(), details)


def _predicted(subject: Subject) -> Found:
    """From layers that are compiled and measured once each; a candidate that breaks a bound by
    less than the prediction's error may keep it."""
    from .layer_latency import predict

    evaluation, started = subject.evaluation, time.monotonic()
    found = predict(
        evaluation.architecture,
        batch=evaluation.batch,
        threads=evaluation.threads,
        target=evaluation.target,
        deadline=subject.deadline,
    )

    def values(share: float) -> dict[str, float]:
        median_ms = share * found.median_ms
        times = {"latency_ms": median_ms, "latency_ratio": share * found.ratio}
        return times | {"throughput": evaluation.batch / median_ms * 1e3}

    details = {
        "machine": found.machine.to_dict(),
        "seconds": {"predict": round(time.monotonic() - started, 3)},
        "latency": {
            "predicted": True,
            "error": found.error,
            "batch": evaluation.batch,
            "parts": dict(found.parts),
            "new": found.new,
            "models": found.calibration.models,
        },
    }
    ends = values(max(1 - found.error, LEAST)), values(1 + found.error)
    return Found(values(1.0), details, ends)


def _decoding(subject: Subject) -> Found:
    from .decode import decode
    from .latency import check_target

    evaluation, started = subject.evaluation, time.monotonic()
    check_target(evaluation.target)
    model, example = _compilable(subject)
    if not getattr(model, "steps", False):
        raise EvaluationError("decode_ms wants a causal task with an output for each token")
    found = decode(
        model,
        example,
        target=evaluation.target,
        threads=evaluation.threads,
        deadline=subject.deadline,
    )
    details = {
        "machine": found.machine.to_dict(),
        "seconds": {"decode": round(time.monotonic() - started, 3)},
        "decoding": found.record(),
    }
    return Found(found.values(), details)


def _compilable(subject: Subject) -> tuple[nn.Module, Tensor]:
    """A model of the candidate, untrained, and a batch of what it takes: the first inputs of the
    validation split, from the beginning again where there are not enough."""
    evaluation = subject.evaluation
    with working(), torch.random.fork_rng(devices=[]):
        inputs = subject.splits["validation"].inputs
        model = fresh(evaluation.architecture, evaluation.seed)
    return model, inputs[torch.arange(evaluation.batch) % len(inputs)]


def _trained(subject: Subject) -> Found:
    evaluation = subject.evaluation
    read = _proxies(subject) if evaluation.proxies else {}
    trained = learn(evaluation, subject.task, subject.splits, subject.deadline)
    best = trained.best
    rates = [learnt.to_dict() for learnt in trained.learnt]
    rates += [{"rate": rate, "error": why} for rate, why in trained.failed.items()]
    details = {
        "steps": best.course.last.step,
        "lr": best.rate,
        "train_loss": best.course.last.loss,
        "rates": rates,
        "training_flops": _flops(evaluation, trained),
        "data": subject.task.record(),
        "seconds": {"train": round(trained.seconds, 3)},
        **best.score.details,
        **read,
    }
    if best.unkept:
        details["unkept"] = best.unkept
    may_improve = evaluation.until < 1 and evaluation.weights == "own"
    return Found({"quality": best.quality}, details, ({}, {}) if may_improve else None)


def _flops(evaluation: Evaluation, trained: Trained) -> int:
    """Operations of the training so far, whoever did them; of shared weights, those done here."""
    if evaluation.weights == "shared":
        return trained.flops
    steps = sum(learnt.course.last.step + evaluation.pretrain for learnt in trained.learnt)
    return steps * step_flops(evaluation.architecture, evaluation.batch)


def _proxies(subject: Subject) -> dict[str, Any]:
    """Of the candidate before training; a proxy that is not defined for it says why."""
    from .proxies import proxies

    of = subject.evaluation
    read = proxies(of.architecture, subject.task, of.seed, of.proxies)
    known = {name: float(found.value) for name, found in read.items() if found.value is not None}
    missing = {name: found.why for name, found in read.items() if found.value is None}
    return {"proxies": known} | ({"no_proxies": missing} if missing else {})


COUNTED = ("params", "flops", "activation_bytes", "state_bytes")
TIMED = ("latency_ms", "latency_p95_ms", "latency_ratio", "throughput", "peak_bytes")

STAGES = (
    Stage("count", COUNTED, _counted, free=True),
    Stage("latency", TIMED, _latency),
    Stage("decode", ("decode_ms",), _decoding),
    Stage("train", ("quality",), _trained),
)


def evaluated(evaluation: Evaluation, deadline: Deadline) -> Measurement:
    """Stage by stage what is wanted, or up to the constraint that is broken. Raises EvaluationError
    where a stage does, or does not measure what is wanted of it."""
    subject = Subject(evaluation, deadline)
    constraints = [Constraint.parse(text) for text in evaluation.constraints]
    wanted = set(evaluation.metrics)
    values: dict[str, float] = {}
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    seconds: dict[str, float] = {}
    skipped: dict[str, str] = {}
    details = _given(evaluation)
    broken = ""
    for stage in STAGES:
        asked = wanted & set(stage.metrics)
        if broken or not (asked or stage.free):
            skipped[stage.name] = broken or "not wanted"
            continue
        found = stage.run(subject)
        if missing := asked - set(found.values):
            raise EvaluationError(_unmeasured(evaluation, missing))
        values |= found.values
        ends = found.sure or (found.values, found.values)
        low, high = low | dict(ends[0]), high | dict(ends[1])
        details |= found.details
        seconds |= found.details.get("seconds", {})
        both = (c.broken(low) and c.broken(high) and c.broken(values) for c in constraints)
        broken = next(filter(None, both), "")
    undecided = sorted(name for name in values if not low.get(name) == high.get(name) is not None)
    details |= {"seconds": seconds, "skipped": skipped, "undecided": undecided}
    return Measurement(values, details, broken)


def _given(evaluation: Evaluation) -> dict[str, Any]:
    """For the record: what the numbers depend on. The machine is that of a latency, if there is
    one."""
    return {
        "machine": machine(evaluation.threads, evaluation.target).to_dict(),
        "task": evaluation.task,
        "target": evaluation.target,
        "seed": evaluation.seed,
        "batch": evaluation.batch,
        "budget": str(evaluation.budget),
        "until": evaluation.until,
        "pretrain": evaluation.pretrain,
        "weights": evaluation.weights,
    }


def _unmeasured(evaluation: Evaluation, missing: set[str]) -> str:
    names = ", ".join(sorted(missing))
    if evaluation.latency == "layers":
        return f"{names}: not predicted from layers; measure it on whole models"
    return f"{names}: not measured for this architecture"
