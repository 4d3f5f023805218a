"""What a search looks for: metrics with a direction, and what one evaluation measured.

It must not know how a metric is measured. Next: `evaluate/` measures, `front.py` compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Direction(StrEnum):
    """Which way is better."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"


@dataclass(frozen=True)
class Metric:
    """A number that an evaluation yields. `unit` is for people."""

    name: str
    direction: Direction
    unit: str
    what: str


METRICS = {
    metric.name: metric
    for metric in (
        Metric("quality", Direction.MAXIMIZE, "", "the task's score on its validation split"),
        Metric(
            "latency_ms", Direction.MINIMIZE, "ms", "median time of a call of the compiled model"
        ),
        Metric("latency_p95_ms", Direction.MINIMIZE, "ms", "95th percentile of the same calls"),
        Metric("params", Direction.MINIMIZE, "", "number of trained parameters"),
    )
}


@dataclass(frozen=True)
class Measurement:
    """What one evaluation measured: metric name -> finite value, and `details` for the record
    (budget, seed, machine, compiler report), JSON-ready."""

    values: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)
