"""The latency of a candidate, on the graph that our compiler rewrote, in a quiet machine.

The one file of the search that imports the compiler. Calls of the candidate alternate with calls
of a fixed piece of work: a machine that is slow today is slow for both, and `ratio` says how much
the candidate costs regardless. It must not know training or tasks. Next: `quiet.py`, `machine.py`.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...compiler import Report, collect
from ...compiler.lower import target as known_target
from ..errors import EvaluationError
from .failure import Deadline, reason
from .machine import Machine, machine, using_threads
from .quiet import alone, working

REFERENCE = "r1"  # a new name with every change of the work, so that no ratios of two are compared
RTOL, ATOL = 1e-3, 1e-3  # of outputs, which are logits: rounding is far below, mistakes far above
WARM_UP = 5  # calls
LEAST, MOST = 30, 2000  # calls that are measured
AIM_S = 0.5  # together, if the least number of calls allows

Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Latency:
    """Times of one call with a batch of `batch` images, in ms; `samples` calls were measured.
    `compile_s` and `measure_s` are by the clock, waiting included."""

    median_ms: float
    p95_ms: float
    reference_ms: float
    samples: int
    batch: int
    graph_hash: str
    report: dict[str, Any]
    machine: Machine
    compile_s: float
    measure_s: float

    @property
    def ratio(self) -> float:
        """The median, in calls of the reference."""
        return self.median_ms / self.reference_ms


def measure(
    model: nn.Module, example: Tensor, *, target: str, threads: int, deadline: Deadline
) -> Latency:
    """The time of a call of the compiled model, without gradients; leaves it in eval mode.

    Whatever this process had compiled with `torch.compile` is forgotten, before and after. Raises
    EvaluationError if the model cannot be compiled, if the compiled model gives another answer,
    or if the time is up. Where our compiler declined or failed, the target compiled the graph as
    it was: that is a measurement, and the report says so.
    """
    model.eval()
    with using_threads(threads), torch.no_grad(), _forgetting():
        started = time.monotonic()
        call, report = _compiled(model, example, target)
        compiled = time.monotonic()
        deadline.check("compiling")
        candidate, reference = _alternate(call, deadline)
        ended = time.monotonic()
    return Latency(
        median_ms=statistics.median(candidate),
        p95_ms=_p95(candidate),
        reference_ms=statistics.median(reference),
        samples=len(candidate),
        batch=len(example),
        graph_hash=report.graph_hash,
        report=report.to_dict(),
        machine=machine(threads, target),
        compile_s=compiled - started,
        measure_s=ended - compiled,
    )


def check_target(name: str) -> None:
    """Raises the compiler's OptionError unless `name` is a target: better before training."""
    known_target(name, {})


@contextmanager
def _forgetting() -> Iterator[None]:
    """Dynamo keeps code per function, and gives up on one after eight models that share it: all
    candidates do. Forgetting also keeps a worker from growing."""
    torch.compiler.reset()
    try:
        yield
    finally:
        torch.compiler.reset()


def _compiled(model: nn.Module, example: Tensor, target: str) -> tuple[Call, Report]:
    compiled = torch.compile(model, backend="formwright", options={"target": target}, dynamic=False)
    with working(), collect() as report:
        expected = model(example)
        try:
            found = compiled(example)
        except Exception as error:
            raise EvaluationError(reason(error)) from error
    if not report.graphs:
        raise EvaluationError("nothing was compiled: torch.compile is switched off, or gave up")
    _check(found, expected)
    return lambda: compiled(example), report


def _check(found: Tensor, expected: Tensor) -> None:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise EvaluationError(
            f"compiled, the model returns {found.dtype} {list(found.shape)}; "
            f"as it is, {expected.dtype} {list(expected.shape)}"
        )
    if not torch.allclose(found, expected, rtol=RTOL, atol=ATOL):
        far = (found - expected).abs().max().item()
        raise EvaluationError(f"compiled, the model gives another answer: up to {far:.3g} away")


def _alternate(call: Call, deadline: Deadline) -> tuple[list[float], list[float]]:
    """Times in ms of the candidate and of the reference, called in turn."""
    reference = _reference()
    with working():
        gc.collect()
    try:
        with alone(deadline.at) as alive, _no_gc():
            warm = []
            for _ in range(WARM_UP):
                deadline.check("warming up")
                alive()
                warm.append(_timed(call) + _timed(reference))
            pair = statistics.median(warm[1:])  # the first call is another story
            rounds = []
            for _ in range(min(max(LEAST, round(AIM_S * 1e3 / pair)), MOST)):
                deadline.check("measuring")
                alive()
                rounds.append((_timed(call), _timed(reference)))
    except TimeoutError as error:
        raise deadline.passed("waiting for a quiet machine") from error
    return [mine for mine, _ in rounds], [fixed for _, fixed in rounds]


def _timed(call: Call) -> float:
    started = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - started) / 1e6


@contextmanager
def _no_gc() -> Iterator[None]:
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _reference() -> Call:
    """What a layer does, in a fixed size on fixed data, run as it is: about as long as a small
    candidate. `REFERENCE` is its version."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(128, 256, generator=generator)
    weight = torch.randn(256, 256, generator=generator) / 16

    def work() -> Tensor:
        mixed = torch.softmax(tokens @ weight, dim=-1) @ weight
        return nn.functional.layer_norm(mixed, (256,))

    return work


def _p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20, method="inclusive")[-1]
