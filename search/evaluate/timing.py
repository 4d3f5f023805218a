"""How long a call takes, in turn with a fixed piece of work, in a quiet machine.

A machine that is slow today is slow for both, so a ratio of the two says how much the call costs
regardless. Calls during which the system gave the processor to somebody else are left out; where
hardly any were spared, and one thread computes, its processor time is taken instead of the wall's.
It must not know models or compilers.
Next: `quiet.py`, `allocator.py`.
"""

from __future__ import annotations

import gc
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .allocator import keeping_memory
from .failure import Deadline
from .quiet import alone, working

REFERENCE = "r1"  # a new name with every change of the work, so that no ratios of two are compared
WARM_UP = 5  # calls, at least
# glibc's allocator needs up to some dozen calls until it serves a call from what the one before
# freed (older ones split aligned blocks so that the remains fill a cache first): so many more.
SETTLING = 40
SETTLED = 16  # page faults of a call, at most
LEAST, MOST = 30, 2000  # calls that are measured
PATIENCE = 4  # times as many calls are made to have enough that were not disturbed

Call = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Pairs of times in ms: of the call, and of the reference right after it.

    `clock` is "wall" or "processor", `disturbed` the share of all pairs that were interrupted,
    `faults` the page faults of a call, on average: above zero, the allocator is part of what was
    measured.
    """

    calls: tuple[float, ...]
    reference: tuple[float, ...]
    clock: str
    disturbed: float
    faults: float

    @property
    def median_ms(self) -> float:
        return statistics.median(self.calls)

    @property
    def p95_ms(self) -> float:
        return statistics.quantiles(self.calls, n=20, method="inclusive")[-1]

    @property
    def reference_ms(self) -> float:
        return statistics.median(self.reference)

    @property
    def ratio(self) -> float:
        """What the call takes in calls of the reference, in the median pair."""
        pairs = zip(self.calls, self.reference, strict=True)
        return statistics.median(mine / fixed for mine, fixed in pairs)

    def record(self) -> dict[str, Any]:
        """For people who ask how sure the numbers are, JSON-ready."""
        return {
            "samples": len(self.calls),
            "reference_ms": self.reference_ms,
            "clock": self.clock,
            "disturbed": round(self.disturbed, 3),
            "page_faults": round(self.faults, 1),
        }


def in_turn(call: Call, *, aim_s: float, deadline: Deadline) -> Times:
    """Measures for about `aim_s` seconds, at least `LEAST` calls. Raises EvaluationError if the
    time is up, or the machine did not become quiet in time."""
    fixed = reference()
    with working():
        gc.collect()
    try:
        with alone(deadline.at) as alive, _no_gc(), keeping_memory():

            def pair(doing: str) -> Pair:
                deadline.check(doing)
                alive()
                return _pair(call, fixed)

            warm = [pair("warming up") for _ in range(WARM_UP)]
            while warm[-1].faults > SETTLED and len(warm) < WARM_UP + SETTLING:
                warm.append(pair("warming up"))
            once = statistics.median(sum(p.wall) for p in warm[1:])  # the first is special
            wanted = min(max(LEAST, round(aim_s * 1e3 / once)), MOST)
            made: list[Pair] = []
            while len(made) < PATIENCE * wanted and sum(p.whole for p in made) < wanted:
                made.append(pair("measuring"))
    except TimeoutError as error:
        raise deadline.passed("waiting for a quiet machine") from error
    return times_of(made, one_thread=torch.get_num_threads() == 1)


@dataclass(frozen=True)
class Pair:
    """A call and the reference behind it: ms by the clock on the wall, ms in which this thread had
    a processor, and whether nobody took it away meanwhile."""

    wall: tuple[float, float]
    processor: tuple[float, float]
    whole: bool
    faults: int


def times_of(made: Sequence[Pair], *, one_thread: bool) -> Times:
    """Of the pairs that were not disturbed, if there are `LEAST`; else of all."""
    whole = [pair for pair in made if pair.whole]
    enough = len(whole) >= LEAST
    clock = "wall" if enough or not one_thread else "processor"
    kept = whole if enough else made
    calls, fixed = zip(*(p.wall if clock == "wall" else p.processor for p in kept), strict=True)
    faults = statistics.fmean(pair.faults for pair in kept)
    return Times(calls, fixed, clock, 1 - len(whole) / len(made), faults)


def reference() -> Callable[[], Tensor]:
    """What a layer does, in a fixed size on fixed data, run as it is: about as long as a small
    candidate. `REFERENCE` is its version."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(128, 256, generator=generator)
    weight = torch.randn(256, 256, generator=generator) / 16

    def work() -> Tensor:
        mixed = torch.softmax(tokens @ weight, dim=-1) @ weight
        return nn.functional.layer_norm(mixed, (256,))

    return work


@dataclass(frozen=True)
class _Now:
    """What is read before and after a call, in ns and counts."""

    wall: int
    processor: int
    switches: int
    faults: int

    @classmethod
    def read(cls) -> _Now:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return cls(time.perf_counter_ns(), time.thread_time_ns(), used.ru_nivcsw, used.ru_minflt)


def _pair(call: Call, fixed: Call) -> Pair:
    first = _Now.read()
    call()
    second = _Now.read()
    fixed()
    third = _Now.read()
    return Pair(
        ((second.wall - first.wall) / 1e6, (third.wall - second.wall) / 1e6),
        ((second.processor - first.processor) / 1e6, (third.processor - second.processor) / 1e6),
        third.switches == first.switches,
        second.faults - first.faults,
    )


@contextmanager
def _no_gc() -> Iterator[None]:
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
