"""Attention written by hand: our backend beside Inductor, eager, ONNX Runtime and OpenVINO.

    python benchmarks/attention.py [--cells causal/* train/512] [--lengths 512 1024] [--rounds 7]
                                   [--again] [--quick] [--out docs/measurements/attention.json]

A cell is a model at a length (attention_models.py). Beside the peers run an `oracle`, the model
with the best call of `scaled_dot_product_attention` written by hand, and `sdpa-dense`, with that
call on the dense mask; both under Inductor. Measured for each cell, and kept in the JSON:

- time: all contestants in one process (attention_alone.py measures the rest), checked against
  eager, then in turn, in another order each round. A turn is one call that does not count and the
  median of at least one that does. The ratio is the median over rounds of the ratios in a round,
  with a 95 % bootstrap interval.
- memory: by how much the peak of a steady call lies above the memory just before it. (OpenVINO
  keeps what it needs between calls, so its calls add nothing.)
- compile: seconds of a first call of ours and of Inductor's, each in a process with an empty
  cache, and our passes' share of them.

Cells in the JSON are not measured again, unless `--again`; those of another machine or of other
versions are dropped. `--quick` tries everything on tiny lengths and keeps nothing without `--out`.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from attention_models import HEADS, KV_HEADS, LAYERS, LENGTHS, MODELS, RATIO, WIDTH, Case
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "docs" / "measurements" / "attention.json"
QUICK_LENGTHS, QUICK_WINDOW = (64, 128), 32
TURN_S = 0.3  # a turn takes about so long, or two calls
RESAMPLES = 4000
LIMIT_S = 3600  # of one process
COMPARED = ("ours", "inductor")  # whose compile times are
console = Console(width=max(Console().width, 150))


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


def measure(case: Case, given: argparse.Namespace) -> dict[str, Any]:
    """All of one cell."""
    from attention_contestants import names

    task = {"case": asdict(case), "threads": given.threads}
    with tempfile.TemporaryDirectory() as shared:
        with console.status(f"{case.key}: times"):
            row = child("attention.py", {**task, "rounds": given.rounds}, given.threads, shared)
        row["alone"] = {}
        todo = [n for n in names(case) if n not in row["failed"]]
        repeated = [n for n in COMPARED if n in todo] * (given.compiles - 1)
        for name in [*todo, *repeated]:
            with console.status(f"{case.key}: {name} alone"), tempfile.TemporaryDirectory() as own:
                cache = own if name in COMPARED else shared
                try:
                    found = child(
                        "attention_alone.py", {**task, "name": name}, given.threads, cache
                    )
                    row["alone"].setdefault(name, []).append(found)
                except Failed as failed:
                    row["failed"][f"{name} alone"] = str(failed)
    return {"case": asdict(case), **row, "commit": commit(), "at": time.strftime("%Y-%m-%d %H:%M")}


# --- times --------------------------------------------------------------------------------------


def times(case: Case, threads: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of each contestant by round. Runs in a process of its own."""
    import torch
    from attention_contestants import TOLERANCE, apart, names, prepare

    torch.set_num_threads(threads)
    load = os.getloadavg()[0]
    calls, apart_by, failed = {}, {}, {}
    expected: list[torch.Tensor] = []
    for name in names(case):
        try:
            call = prepare(name, case, threads)
            found = [t.clone() for t in call()]
            expected = expected or found
            apart_by[name] = max(apart(found, expected), apart(call(), expected))
            if apart_by[name] > TOLERANCE:
                failed[name] = f"wrong: {apart_by[name]:.1e} of the largest value from eager"
            else:
                calls[name] = call
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            failed[name] = f"{type(error).__name__}: {lines[0][:300]}"
            if name == "eager":
                raise
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            samples[name].append(turn(calls[name]))
    return {
        "batch": case.batch,
        "load_before": load,
        "ms": samples,
        "apart": apart_by,
        "failed": failed,
    }


def turn(call: Any) -> float:
    """Milliseconds of a call, after one that wakes its threads and fills the caches."""
    call()
    found: list[float] = []
    started = time.perf_counter()
    while not found or time.perf_counter() - started < TURN_S:
        before = time.perf_counter()
        call()
        found.append((time.perf_counter() - before) * 1e3)
    return statistics.median(found)


def ratio(row: dict[str, Any], above: str, below: str) -> tuple[float, float, float] | None:
    """The median ratio of a round, and the ends of its 95 % bootstrap interval."""
    if above not in row["ms"] or below not in row["ms"]:
        return None
    pairs = [a / b for a, b in zip(row["ms"][above], row["ms"][below], strict=True)]
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    ends = medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES) - 1]
    return statistics.median(pairs), *ends


# --- the table ----------------------------------------------------------------------------------

RATIOS = {
    "inductor / ours": ("inductor", "ours"),
    "ours / oracle": ("ours", "oracle"),
    "dense / ours": ("sdpa-dense", "ours"),
    "eager / ours": ("eager", "ours"),
    "ort / ours": ("ort", "ours"),
    "openvino / ours": ("openvino", "ours"),
}


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """What is read off a cell: medians, ratios with intervals, memory, compile time."""

    def alone(name: str, what: str) -> float | None:
        rows = row["alone"].get(name, [])
        return statistics.median(r[what] for r in rows) if rows else None

    def over(above: float | None, below: float | None) -> float | None:
        return above / below if above is not None and below else None

    return {
        "ms": {name: statistics.median(values) for name, values in row["ms"].items()},
        **{what: ratio(row, *pair) for what, pair in RATIOS.items()},
        "peak mb": {name: alone(name, "peak_mb") for name in row["alone"]},
        "peak ours / inductor": over(alone("ours", "peak_mb"), alone("inductor", "peak_mb")),
        "cold ours / inductor": over(alone("ours", "first_s"), alone("inductor", "first_s")),
        "passes / cold": over(alone("ours", "passes_s"), alone("ours", "first_s")),
    }


def show(cells: dict[str, Any], threads: int) -> None:
    title = f"attention written by hand, {threads} threads; median ratios, their 95 % intervals"
    table = Table(title=title)
    heads = ("peak ours / inductor", "cold ours / inductor", "passes / cold")
    for head in ("cell", "ours ms", *RATIOS, *heads):
        above, _, below = head.rpartition(" / ")
        table.add_column(f"{above} /\n{below}" if above else head, no_wrap=True)
    for key, row in cells.items():
        s = row["summary"]
        texts = [f"{s['ms']['ours']:.1f}" if "ours" in s["ms"] else "failed"]
        for what, pair in RATIOS.items():
            lost = any(name in row["failed"] for name in pair)
            texts.append(_interval(s[what]) if s[what] else "failed" if lost else "-")
        for what in ("peak ours / inductor", "cold ours / inductor"):
            texts.append(f"{s[what]:.2f}" if s[what] is not None else "-")
        share = s["passes / cold"]
        table.add_row(key, *texts, f"{share:.1%}" if share is not None else "-")
    console.print(table)
    for key, row in cells.items():
        for name, why in row["failed"].items():
            console.print(f"{key}: {name} failed: {why}", markup=False)


def _interval(found: tuple[float, float, float]) -> str:
    return f"{found[0]:.2f}\n{found[1]:.2f}..{found[2]:.2f}"


# --- the record ---------------------------------------------------------------------------------


def machine(threads: int) -> dict[str, Any]:
    """What the numbers were taken on and with."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else []
    model = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")
    packages = ("torch", "formwright", "onnx", "onnxscript", "onnxruntime", "openvino")
    return {
        "processor": model or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def settings() -> dict[str, Any]:
    """What every cell has in common; batch, rounds and compiles are in the cells."""
    sizes = {"width": WIDTH, "heads": HEADS, "kv_heads_of_gqa": KV_HEADS, "mlp": RATIO}
    return {"layers": LAYERS, **sizes, "dtype": "float32", "turn_s": TURN_S}


def commit() -> str:
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip()


def chosen(given: argparse.Namespace) -> Iterator[Case]:
    """The cells, shortest first within a model."""
    globs = [g if "/" in g else f"{g}/*" for g in given.cells]
    for model in MODELS:
        for length in given.lengths or (QUICK_LENGTHS if given.quick else LENGTHS[model]):
            case = Case(model, length, QUICK_WINDOW) if given.quick else Case(model, length)
            if any(fnmatch.fnmatch(case.key, g) for g in globs):
                yield case


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cells", nargs="+", default=["*/*"], help="model, or model/length")
    parser.add_argument("--lengths", nargs="+", type=int)
    parser.add_argument("--rounds", type=int, help="of times (7)")
    parser.add_argument("--compiles", type=int, help="of ours and of inductor (3)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="measure cells that are there too")
    parser.add_argument("--quick", action="store_true", help="tiny lengths, 2 rounds, 1 compile")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.rounds = given.rounds or (2 if given.quick else 7)
    given.compiles = given.compiles or (1 if given.quick else 3)
    given.out = given.out or (None if given.quick else OUT)
    return given


def main() -> int:
    given = options()
    if given.one:
        task = json.loads(given.one)
        print(json.dumps(times(Case(**task["case"]), task["threads"], task["rounds"])))
        return 0
    data = {"machine": machine(given.threads), "settings": settings(), "cells": {}}
    if given.out and given.out.exists():
        earlier = json.loads(given.out.read_text(encoding="utf-8"))
        if earlier["machine"] == data["machine"]:  # else these are somebody else's numbers
            data["cells"] = earlier["cells"]
    asked, lost = list(chosen(given)), False
    for case in asked:
        if case.key in data["cells"] and not given.again:
            continue
        try:
            row = measure(case, given)
        except Failed as failed:
            lost = True
            console.print(f"{case.key}: {failed}", markup=False)
            continue
        row["summary"] = summary(row)
        data["cells"][case.key] = row
        lost = lost or "ours" in row["failed"]
        if given.out:
            given.out.parent.mkdir(parents=True, exist_ok=True)
            given.out.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    cells = {c.key: data["cells"][c.key] for c in asked if c.key in data["cells"]}
    show(cells, given.threads)
    return int(lost)


if __name__ == "__main__":
    sys.exit(main())
