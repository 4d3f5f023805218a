"""What a search looks for: metrics with a direction, and what one evaluation measured.

It must not know how a metric is measured. Next: `evaluate/` measures, `front.py` compares.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ..errors import one_line
from .errors import SpecError, UnknownNameError

CONSTRAINT = re.compile(r"\s*(\w{1,64})\s*(<=|>=)\s*([-+.\w]{1,40})\s*")


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
        Metric("throughput", _UP, "1/s", "inputs a second in such calls", True),
        Metric("decode_ms", _DOWN, "ms", "median time of one step of decoding", True),
        Metric("peak_bytes", _DOWN, "B", "most memory that a call takes beside the weights", True),
        Metric("params", _DOWN, "", "number of trained parameters"),
        Metric("flops", _DOWN, "", "floating-point operations of one input"),
        Metric("activation_bytes", _DOWN, "B", "what one input's layers write, in fp32"),
        Metric("state_bytes", _DOWN, "B", "what decoding one input keeps, in fp32"),
    )
}


def metric_named(name: object, field: str) -> Metric:
    """Raises UnknownNameError for a metric that is not known."""
    if not isinstance(name, str) or name not in METRICS:
        raise UnknownNameError("metric", name, METRICS, field)
    return METRICS[name]


@dataclass(frozen=True)
class Constraint:
    """What a candidate must keep: `metric <= bound`, or `>=`.

    >>> Constraint.parse("params<=2e4").broken({"params": 20001.0})
    'params is 20001, not <= 20000'
    """

    metric: str
    sign: str
    bound: float

    @classmethod
    def parse(cls, text: object, field: str = "") -> Constraint:
        """Raises SpecError, UnknownNameError for a metric that is not known."""
        found = CONSTRAINT.fullmatch(text) if isinstance(text, str) else None
        try:
            bound = float(found[3]) if found else math.nan
        except ValueError:
            bound = math.nan
        if found is None or not math.isfinite(bound):
            said = one_line(repr(text), 80)
            raise SpecError(f'wanted "metric<=number" or "metric>=number", got {said}', field)
        return cls(metric_named(found[1], field).name, found[2], bound)

    def broken(self, values: Mapping[str, float]) -> str:
        """In words, or empty: it is kept, or not yet known."""
        if self.metric not in values:
            return ""
        value = values[self.metric]
        kept = value <= self.bound if self.sign == "<=" else value >= self.bound
        return "" if kept else f"{self.metric} is {value:.6g}, not {self.sign} {self.bound:.6g}"


@dataclass(frozen=True)
class Measurement:
    """What one evaluation measured: metric name -> finite value, and `details` for the record
    (budget, seed, machine, compiler report), JSON-ready. `broken` says which constraint ended it,
    in words; then only what was known by then was measured."""

    values: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)
    broken: str = ""

    def malformed(self) -> str:
        """What no log could keep, in words; empty if nothing."""
        for name, value in self.values.items():
            if not isinstance(name, str) or isinstance(value, bool) or not _real(value):
                return f"{name!r} is {value!r}, not a number"
        try:
            json.dumps(dict(self.details), allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            return f"details are not JSON: {error}"
        seconds = self.details.get("seconds", {})
        if not isinstance(seconds, Mapping) or not all(map(_real, seconds.values())):
            return f"seconds are {seconds!r}, not a number for each stage"
        if not _real(flops := self.details.get("training_flops", 0)):
            return f"training_flops is {flops!r}, not a number"
        if not isinstance(names := self.details.get("undecided", []), list | tuple):
            return f"undecided is {names!r}, not a list of metrics"
        return "" if isinstance(self.broken, str) else f"broken is {self.broken!r}, not a text"


def _real(value: object) -> bool:
    return isinstance(value, int | float)
