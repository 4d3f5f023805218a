"""Whether linears that read one tensor are faster merged: q, k, v, and gate and up.

    python benchmarks/projections.py [--target plain inductor] [--mode inference training block]

Shapes: M rows, D wide in; D, D, D out with biases (qkv), D, D/4, D/4 (gqa), 4D, 4D (gate).

    y_i = x W_i^T + b_i      against      y = x W^T + b, cut into views

`inference` takes W as an input, as a hoisted weight is; `training` concatenates in the graph and
differentiates; `block` is inference with what reads the pieces, attention or silu(gate) * up.
A cell is the time apart over the time merged (above 1: merged is faster) as the median of
interleaved rounds, with its quartiles. A round in which one of our threads had to wait for a
processor is taken again: the threads of a call wait for each other, so other load does not slow a
call down by its share but by whole time slices. Where that does not help the cell stays empty;
start the benchmark again when the machine is quieter.
Cells already in docs/measurements/projections.json, of this machine, are kept unless --again.
The rule of compiler/passes/merge_projections.py is read off that file.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch.nn import functional as F

OUT = Path(__file__).resolve().parent.parent / "docs" / "measurements" / "projections.json"
THREADS, ROUNDS, BLOCK_S, PATIENCE_S = 2, 9, 0.006, 2.0
MOST = 2**33  # multiply-adds of a cell: beyond, a round takes too long
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WIDTHS = {
    "inference": (64, 128, 256, 512, 768, 1024, 2048),
    "training": (64, 256, 768),
    "block": (64, 256, 768),
}
ROWS = {
    "inference": (1, 4, 16, 64, 128, 512, 2048),
    "training": (16, 128, 512, 2048),
    "block": (4, 64, 512),
}
SHAPES: dict[str, Callable[[int], tuple[int, ...]]] = {
    "qkv": lambda d: (d, d, d),
    "gqa": lambda d: (d, d // 4, d // 4),
    "gate": lambda d: (4 * d, 4 * d),
}
HEAD = 16
Cell = tuple[str, str, str, str, int, int]  # target, mode, dtype, shape, D, M


def cells(targets: list[str], modes: list[str]) -> Iterator[Cell]:
    for target, mode in itertools.product(targets, modes):
        grid = itertools.product(DTYPES, SHAPES, WIDTHS[mode], ROWS[mode])
        for dtype, shape, width, rows in grid:
            if rows * width * sum(SHAPES[shape](width)) <= MOST:
                yield target, mode, dtype, shape, width, rows


# --- what is timed --------------------------------------------------------------------------------


def read(pieces: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """What a model does with the pieces: attention over sequences of up to 64, or a gated unit."""
    if len(pieces) == 2:
        return F.silu(pieces[0]) * pieces[1]
    steps = min(64, pieces[0].shape[0])
    q, k, v = (p.view(-1, steps, p.shape[1] // HEAD, HEAD).transpose(1, 2) for p in pieces)
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])


def runs(cell: Cell) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The two sides of a cell, ready to be called."""
    target, mode, dtype, shape, width, rows = cell
    sizes = SHAPES[shape](width)
    torch.manual_seed(0)

    def random(*size: int) -> torch.Tensor:
        made = torch.randn(*size) * 0.05
        return made.to(DTYPES[dtype]).requires_grad_(mode == "training")

    x = random(rows, width)
    weights = [random(n, width) for n in sizes]
    biases = [random(n) for n in sizes] if shape == "qkv" else [None] * len(sizes)
    after: Callable[[Any], Any] = read if mode == "block" else tuple

    def apart(x: Any, weights: Any, biases: Any) -> Any:
        return after([F.linear(x, w, b) for w, b in zip(weights, biases, strict=True)])

    def merged(x: Any, weight: Any, bias: Any) -> Any:
        return after(F.linear(x, weight, bias).split(sizes, -1))

    def merged_here(x: Any, weights: Any, biases: Any) -> Any:
        return merged(x, torch.cat(weights), None if biases[0] is None else torch.cat(biases))

    if mode != "training":
        weight = torch.cat(weights)
        bias = None if biases[0] is None else torch.cat(biases)  # type: ignore[arg-type]
        one, other = _compiled(apart, target), _compiled(merged, target)
        return lambda: one(x, weights, biases), lambda: other(x, weight, bias)
    leaves = [x, *weights, *(b for b in biases if b is not None)]
    cotangents = [torch.randn(rows, n).to(DTYPES[dtype]) for n in sizes]

    def step(forward: Callable[..., Any]) -> Callable[[], Any]:
        compiled = _compiled(forward, target)
        return lambda: torch.autograd.grad(compiled(x, weights, biases), leaves, cotangents)

    return step(apart), step(merged_here)


def _compiled(function: Callable[..., Any], target: str) -> Callable[..., Any]:
    if target == "plain":
        return function
    return torch.compile(function, backend=target, dynamic=False, fullgraph=True)


# --- how it is timed ------------------------------------------------------------------------------


def measure(cell: Cell) -> dict[str, float] | None:
    """The numbers of a cell; None where the machine is too busy."""
    torch.compiler.reset()
    apart, merged = runs(cell)
    times: list[tuple[float, float]] = []
    with torch.set_grad_enabled(cell[1] == "training"):
        apart(), merged()
        started = time.monotonic()
        apart(), merged()
        now = time.monotonic()
        end = now + PATIENCE_S + 10 * ROUNDS * (now - started)
        while len(times) < ROUNDS:
            if time.monotonic() > end:
                return None
            order = (apart, merged) if len(times) % 2 else (merged, apart)
            waited = _waited()
            found = {run: _microseconds(run) for run in order}
            if _waited() - waited <= 0.02 * 2 * BLOCK_S:
                times.append((found[apart], found[merged]))
    low, ratio, high = statistics.quantiles([a / m for a, m in times], n=4)
    return {
        "apart_us": round(statistics.median(a for a, _ in times), 1),
        "merged_us": round(statistics.median(m for _, m in times), 1),
        "ratio": round(ratio, 3),
        "low": round(low, 3),
        "high": round(high, 3),
    }


def _microseconds(run: Callable[[], Any]) -> float:
    """The median of the calls that fit into some milliseconds; the first finds cold caches."""
    run()
    calls, end = [], time.perf_counter() + BLOCK_S
    while (started := time.perf_counter()) < end or not calls:
        run()
        calls.append(time.perf_counter() - started)
    return statistics.median(calls) * 1e6


def _waited() -> float:
    """Seconds that the threads of this process have waited for a processor so far (Linux)."""
    total = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            total += int(path.read_text().split()[1])
    return total / 1e9


# --- the file -------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": THREADS,
        "torch": torch.__version__,
    }


def known(out: Path) -> dict[Cell, dict[str, float]]:
    """The cells in the file, if it was written on this kind of machine."""
    if not out.exists():
        return {}
    data = json.loads(out.read_text(encoding="utf-8"))
    if data["machine"] != machine():
        return {}
    names = data["columns"]
    return {tuple(row[:6]): dict(zip(names[6:], row[6:], strict=True)) for row in data["cells"]}


def save(found: dict[Cell, dict[str, float]], out: Path) -> None:
    numbers = ("apart_us", "merged_us", "ratio", "low", "high")
    columns = ["target", "mode", "dtype", "shape", "width", "rows", *numbers]
    head = json.dumps({"machine": machine(), "rounds": ROUNDS, "columns": columns}, indent=1)
    rows = [json.dumps([*cell, *(v[n] for n in numbers)]) for cell, v in sorted(found.items())]
    text = head[:-2] + ',\n "cells": [\n  ' + ",\n  ".join(rows) + "\n ]\n}\n"
    out.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--target", nargs="+", default=["plain", "inductor"])
    parser.add_argument("--mode", nargs="+", default=list(WIDTHS), choices=list(WIDTHS))
    parser.add_argument("--again", action="store_true", help="measure known cells anew")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(THREADS)
    found = known(given.out)
    wanted = [c for c in cells(given.target, given.mode) if given.again or c not in found]
    busy = 0
    for cell in track(wanted, "measuring", console=Console(stderr=True)):
        numbers = measure(cell) if busy < 5 else None
        busy = 0 if numbers is not None else busy + 1
        if numbers is not None:
            found[cell] = numbers
            save(found, given.out)
    if busy >= 5:
        print("the machine is too busy: the rest is left for another time")
    for cell in (c for c in cells(given.target, given.mode) if c in found):
        v = found[cell]
        print(*cell, f"{v['ratio']:.2f} [{v['low']:.2f}-{v['high']:.2f}] {v['apart_us']:.0f} us")


if __name__ == "__main__":
    main()
