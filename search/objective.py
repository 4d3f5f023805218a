"""What a search looks for: metrics with a direction, and what one evaluation measured.

It must not know how a metric is measured. Next: `evaluate/` measures, `front.py` compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .errors import UnknownNameError


class Direction(StrEnum):
    """Which way is better."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


@dataclass(frozen=True)
class Metric:
    """A number that an evaluation yields. `unit` is for people; values that are `of_machine`
    compare only where the machine was the same."""

    name: str
    direction: Direction
    unit: str
    what: str
    of_machine: bool = False


_UP, _DOWN = Direction.MAXIMIZE, Direction.MINIMIZE

METRICS = {
    metric.name: metric
    for metric in (
        Metric("quality", _UP, "", "the task's score on its validation split"),
        Metric("latency_ms", _DOWN, "ms", "median time of a call of the compiled model", True),
        Metric("latency_p95_ms", _DOWN, "ms", "95th percentile of the same calls", True),
        Metric("latency_ratio", _DOWN, "", "the median, in calls of a fixed reference", True),
        Metric("params", _DOWN, "", "number of trained parameters"),
    )
}


def metric_named(name: object, field: str) -> Metric:
    """Raises UnknownNameError for a metric that is not known."""
    if not isinstance(name, str) or name not in METRICS:
        raise UnknownNameError("metric", name, METRICS, field)
    return METRICS[name]


@dataclass(frozen=True)
class Measurement:
    """What one evaluation measured: metric name -> finite value, and `details` for the record
    (budget, seed, machine, compiler report), JSON-ready."""

    values: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)
