"""What is measured of one trained model: what it costs, and every time that it has.

Each is measured as the search measures it, of the whole compiled model, whatever was predicted
there. It must not know splits or scores. Next: `../evaluate/latency.py`, `../evaluate/decode.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import EvaluationError
from ..evaluate.decode import decode
from ..evaluate.evaluator import Evaluation
from ..evaluate.failure import Deadline
from ..evaluate.latency import MEASURED, measure
from ..evaluate.stages import STAGES, Subject
from ..model import Model

(COUNT,) = (stage for stage in STAGES if stage.name == "count")


@dataclass(frozen=True)
class Figures:
    """`values` by the ids of METRICS; `undefined` says why of those that this model does not have;
    `record` is what they depend on, `report` the compiler's."""

    values: Mapping[str, float]
    undefined: Mapping[str, str]
    record: Mapping[str, Any]
    report: Mapping[str, Any]


def figures(model: Model, example: Tensor, evaluation: Evaluation, subject: Subject) -> Figures:
    """Of a call with `example`, and of one step of decoding where the model goes step by step. A
    time limit of the evaluation holds for each. Raises EvaluationError as they do."""
    target, threads = evaluation.target, evaluation.threads
    deadline = Deadline.after(evaluation.timeout_s)
    found = measure(
        model, example, target=target, threads=threads, deadline=deadline, wanted=MEASURED
    )
    values = {**COUNT.run(subject).values, **found.values()}
    record: dict[str, Any] = {"machine": found.machine.to_dict(), "latency": found.record()}
    if not model.steps:
        undefined = {"decode_ms": "only a causal model with an output for each token decodes"}
        return Figures(values, undefined, record, found.report)
    deadline = Deadline.after(evaluation.timeout_s)
    try:
        decoded = decode(model, example, target=target, threads=threads, deadline=deadline)
    except EvaluationError as error:
        return Figures(values, {"decode_ms": str(error)}, record, found.report)
    values |= decoded.values()
    return Figures(values, {}, record | {"decoding": decoded.record()}, found.report)
