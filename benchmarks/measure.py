"""What the long benchmarks share: processes of their own, turns, ratios, the record of the machine.

It knows no contestant. A ratio is the median over rounds of the ratios in a round, with a 95 %
bootstrap interval; a turn is one call that does not count and the median of at least one that does.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MEASUREMENTS = HERE.parent / "docs" / "measurements"
TURN_S = 0.3  # a turn takes about so long, or two calls
RESAMPLES = 4000
LIMIT_S = 3600  # of one process
PACKAGES = ("torch", "formwright", "onnx", "onnxscript", "onnxruntime", "openvino")

Samples = Mapping[str, Sequence[float]]


# --- a process of its own -----------------------------------------------------------------------


class Failed(RuntimeError):
    """A process gave no result; the end of what it wrote says why."""


def child(script: str, task: dict[str, Any], threads: int, cache: str | None = None) -> Any:
    """What a process prints as its last line, as JSON."""
    settings = {"OMP_NUM_THREADS": str(threads)}
    if cache is not None:
        settings["TORCHINDUCTOR_CACHE_DIR"] = cache
    try:
        done = subprocess.run(
            [sys.executable, str(HERE / script), "--one", json.dumps(task)],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            env={**os.environ, **settings},
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"no result after {LIMIT_S} s") from None
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise Failed(f"exit code {done.returncode}: {''.join(last)[:300]}")
    return json.loads(done.stdout.splitlines()[-1])


# --- the command line ---------------------------------------------------------------------------


def options(
    doc: str | None,
    out: Path,
    cells: str,
    *,
    rounds: int = 7,
    more: Mapping[str, Any] | None = None,
) -> argparse.Namespace:
    """What the benchmarks of cells are asked: `cells` says what a cell is, `more` are further
    arguments by name. A quick run has 2 rounds and keeps nothing unless told where."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else "")
    parser.add_argument("--cells", nargs="+", default=["*"], help=cells)
    for name, settings in (more or {}).items():
        parser.add_argument(name, **settings)
    parser.add_argument("--rounds", type=int, help=f"of times ({rounds})")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="measure cells that are there too")
    parser.add_argument("--quick", action="store_true", help="tiny cells, 2 rounds")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.rounds = given.rounds or (2 if given.quick else rounds)
    given.out = given.out or (None if given.quick else out)
    return given


# --- cells --------------------------------------------------------------------------------------


def resumed(
    asked: Sequence[Any],
    out: Path | None,
    head: dict[str, Any],
    again: bool,
    measured: Callable[[Any], dict[str, Any]],
    say: Callable[[str], None],
) -> tuple[dict[str, Any], bool]:
    """The cells of `asked` by their keys: those in the record `out`, unless `again`, and those that
    are measured now and kept there at once; and whether one was lost. A record of another machine
    or of other versions than `head` has is dropped."""
    data = {**head, "cells": {}}
    if out and out.exists():
        earlier = json.loads(out.read_text(encoding="utf-8"))
        if earlier["machine"] == data["machine"]:  # else these are somebody else's numbers
            data["cells"] = earlier["cells"]
    lost = False
    for case in asked:
        if case.key in data["cells"] and not again:
            continue
        try:
            row = measured(case)
        except Failed as failed:
            lost = True
            say(f"{case.key}: {failed}")
            continue
        data["cells"][case.key] = row
        lost = lost or "ours" in row["failed"]
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return {c.key: data["cells"][c.key] for c in asked if c.key in data["cells"]}, lost


# --- times --------------------------------------------------------------------------------------


def turn(call: Callable[[], Any]) -> float:
    """Milliseconds of a call, after one that wakes its threads and fills the caches."""
    call()
    found: list[float] = []
    started = time.perf_counter()
    while not found or time.perf_counter() - started < TURN_S:
        before = time.perf_counter()
        call()
        found.append((time.perf_counter() - before) * 1e3)
    return statistics.median(found)


def in_turn(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each call by round, in another order each round."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            samples[name].append(turn(calls[name]))
    return samples


def ratio(ms: Samples, above: str, below: str) -> tuple[float, float, float] | None:
    """The median ratio of a round, and the ends of its 95 % bootstrap interval."""
    if above not in ms or below not in ms:
        return None
    pairs = [a / b for a, b in zip(ms[above], ms[below], strict=True)]
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    ends = medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES) - 1]
    return statistics.median(pairs), *ends


def interval(found: tuple[float, float, float]) -> str:
    """A ratio and its interval as two lines of a table."""
    return f"{found[0]:.2f}\n{found[1]:.2f}..{found[2]:.2f}"


# --- memory -------------------------------------------------------------------------------------


def resident_mb(what: str) -> float:
    """VmRSS (now) or VmHWM (the peak since it was reset). Linux only."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(x.split()[1]) for x in lines if x.startswith(f"{what}:")) / 1024


def settle() -> float:
    """Give back what is free, so that a call that needs it again is seen to; the memory now."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return resident_mb("VmRSS")


# --- the record ---------------------------------------------------------------------------------


def machine(threads: int, *more: str) -> dict[str, Any]:
    """What the numbers were taken on and with."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else []
    model = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")
    return {
        "processor": model or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        **{name: _version(name) for name in (*PACKAGES, *more)},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str:
    """The commit that was measured."""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip()
