"""The latency of a candidate, on the graph that our compiler rewrote, in a quiet machine.

The one file of the search that imports the compiler. What was compiled is checked against what it
was compiled from, before any clock starts. It must not know training or tasks. Next: `timing.py`,
`memory.py`, `machine.py`; `decode.py` measures a step of generation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...compiler import Report, collect
from ...compiler.lower import target as known_target
from ..errors import EvaluationError
from .failure import Deadline, reason
from .machine import Conditions, Machine, conditions, machine, using_threads
from .memory import peak_bytes
from .quiet import working
from .timing import REFERENCE, WARM_UP, Times, in_turn

__all__ = [
    "MEASURED",
    "REFERENCE",
    "Compiled",
    "Latency",
    "check_target",
    "compiled",
    "measure",
    "measuring",
]

AIM_S = 0.5  # of the calls that are measured, together
FAR = 1e-3  # of the largest output that is 1 or more: rounding is far below, mistakes far above
TIMES = ("latency_ms", "latency_p95_ms", "latency_ratio", "throughput")
MEASURED = (*TIMES, "peak_bytes")


@dataclass(frozen=True)
class Latency:
    """One call with a batch of `batch` inputs: its `times`, and the most memory that it takes
    beside the weights, if that was wanted. `compile_s` and `measure_s` are by the clock, waiting
    included."""

    times: Times
    batch: int
    graph_hash: str
    report: dict[str, Any]
    machine: Machine
    conditions: Conditions
    compile_s: float
    measure_s: float
    peak_bytes: int | None = None

    @property
    def median_ms(self) -> float:
        return self.times.median_ms

    @property
    def p95_ms(self) -> float:
        return self.times.p95_ms

    @property
    def reference_ms(self) -> float:
        return self.times.reference_ms

    @property
    def samples(self) -> int:
        """Calls that count."""
        return len(self.times.calls)

    @property
    def ratio(self) -> float:
        """What a call takes in calls of the reference, in the median pair."""
        return self.times.ratio

    def values(self) -> dict[str, float]:
        """By the ids of METRICS; throughput is in inputs a second."""
        numbers = (self.median_ms, self.p95_ms, self.ratio, self.batch / self.median_ms * 1e3)
        values = dict(zip(TIMES, numbers, strict=True))
        return values if self.peak_bytes is None else values | {"peak_bytes": self.peak_bytes}

    def record(self) -> dict[str, Any]:
        """What the values depend on beside the machine and the report, JSON-ready."""
        return {
            "batch": self.batch,
            "graph_hash": self.graph_hash,
            "reference": REFERENCE,
            "warm_up": WARM_UP,
            **self.times.record(),
            **self.conditions.to_dict(),
        }


def measure(
    model: nn.Module,
    example: Tensor,
    *,
    target: str,
    threads: int,
    deadline: Deadline,
    wanted: Collection[str] = (),
) -> Latency:
    """The time of a call of the compiled model, without gradients; leaves it in eval mode. With
    "peak_bytes" among `wanted`, its memory too.

    `example` is what the model takes: images, series, tokens. Whatever this process had compiled
    with `torch.compile` is forgotten, before and after. Raises EvaluationError if the model cannot
    be compiled, if the compiled model gives another answer, or if the time is up. Where our
    compiler declined or failed, the target compiled the graph as it was: that is a measurement, and
    the report says so.
    """
    model.eval()
    with measuring(threads):
        started = time.monotonic()
        made = compiled(model, (example,), target)
        deadline.check("compiling")
        between = time.monotonic()
        peak = None
        if "peak_bytes" in wanted:
            with working():
                peak = peak_bytes(made.call, example.device)
        times = in_turn(made.call, aim_s=AIM_S, deadline=deadline)
        ended = time.monotonic()
    return Latency(
        times=times,
        batch=len(example),
        graph_hash=made.report.graph_hash,
        report=made.report.to_dict(),
        machine=machine(threads, target),
        conditions=conditions(),
        compile_s=between - started,
        measure_s=ended - between,
        peak_bytes=peak,
    )


def check_target(name: str) -> None:
    """Raises the compiler's OptionError unless `name` is a target: better before training."""
    known_target(name, {})


@contextmanager
def measuring(threads: int) -> Iterator[None]:
    """What a measurement wants of the process: so many threads, no gradients, and nothing that was
    compiled before. Dynamo keeps code per function, and gives up on one after eight models that
    share it: all candidates do. Forgetting also keeps a worker from growing."""
    with using_threads(threads), torch.no_grad():
        torch.compiler.reset()
        try:
            yield
        finally:
            torch.compiler.reset()


@dataclass(frozen=True)
class Compiled:
    """`call()` is one call of the compiled function, with the arguments it was compiled for."""

    call: Callable[[], Any]
    report: Report


def compiled(function: Callable[..., Any], given: tuple[Any, ...], target: str) -> Compiled:
    """`function`, compiled for these shapes and called once. Raises EvaluationError where it cannot
    be compiled, or gives another answer than as it is."""
    made = torch.compile(function, backend="formwright", options={"target": target}, dynamic=False)
    with working(), collect() as report:
        expected = function(*given)
        try:
            found = made(*given)
        except Exception as error:
            raise EvaluationError(reason(error)) from error
    if not report.graphs:
        raise EvaluationError("nothing was compiled: torch.compile is switched off, or gave up")
    _check(found, expected)
    return Compiled(lambda: made(*given), report)


def _check(found: Any, expected: Any) -> None:
    """Of outputs, or tuples and lists of them."""
    if isinstance(expected, tuple | list):
        for one, other in zip(found, expected, strict=True):
            _check(one, other)
        return
    if not isinstance(expected, Tensor):
        if found != expected:
            raise EvaluationError(f"compiled, the model returns {found!r}; as it is, {expected!r}")
        return
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise EvaluationError(
            f"compiled, the model returns {found.dtype} {list(found.shape)}; "
            f"as it is, {expected.dtype} {list(expected.shape)}"
        )
    differs = found != expected  # not where both are infinite
    if expected.is_floating_point() and expected.isnan().any():
        raise EvaluationError("the model returns what is not a number")
    if not differs.any():
        return
    far = (found.double() - expected.double())[differs].abs().max().item()
    finite = expected[expected.isfinite()].abs()
    largest = finite.max().item() if finite.numel() else 0.0
    if not far <= FAR * max(1.0, largest):
        raise EvaluationError(f"compiled, the model gives another answer: up to {far:.3g} away")
