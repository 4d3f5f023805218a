"""Norms: what one costs above a copy, under Inductor and under us, and what that is in a model.

    python benchmarks/norms.py [--cells 'kernel/*'] [--rounds 9] [--again] [--quick]
                               [--out docs/measurements/norms.json]

Over whole models a norm is 1 to 9 % of the time and drowns in noise, so the norm's own share is
what is compared: a kernel less a copy of its input, and a kernel with the linear that reads it less
that linear, all timed in turn in one process. Whole models follow, as paired ratios. Cells in the
JSON are not measured again, unless `--again`. `--quick` tries everything on tiny cells.
"""

from __future__ import annotations

import fnmatch
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from measure import MEASUREMENTS, child, commit, in_turn, interval, machine, options, ratio, resumed
from norms_contestants import NORMS, Case
from rich.console import Console
from rich.table import Table

OUT = MEASUREMENTS / "norms.json"
console = Console(width=max(Console().width, 140))

CASES = (
    *(Case("kernel", rows, width) for width in (128, 384, 768, 1024) for rows in (32, 512, 4096)),
    Case("vit", 788, 384),
    Case("vit", 197, 192),
    Case("gpt2", 1024, 768),
    Case("gpt2", 128, 256),
    Case("llama", 1024, 512),
    Case("llama", 128, 256),
    Case("gpt2", 512, 256, training=True),
    Case("vit", 788, 384, training=True),
)
QUICK = (Case("kernel", 64, 128), Case("gpt2", 32, 64), Case("llama", 32, 64))
KINDS = ("inductor layer", "inductor rms", "ours layer", "ours rms", "ours crms")


def times(case: Case, threads: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of each contestant by round. Runs in a process of its own."""
    import torch
    from norms_contestants import kernels, models

    torch.set_num_threads(threads)
    load = os.getloadavg()[0]
    calls = kernels(case) if case.kind == "kernel" else models(case)
    return {"load_before": load, "ms": in_turn(calls, rounds), "failed": {}}


def shares(ms: Mapping[str, Sequence[float]], reads: str = "") -> dict[str, float]:
    """Microseconds by which each norm exceeds the copy of the same backend, median over rounds;
    with `reads` "+", both with the linear behind them."""
    found = {}
    for kind in KINDS:
        copies = ms[f"{kind.split()[0]} copy{reads}"]
        pairs = zip(ms[kind + reads], copies, strict=True)
        found[kind] = statistics.median(1e3 * (a - b) for a, b in pairs)
    return found


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """What is read off a cell."""
    ms = row["ms"]
    medians = {name: statistics.median(values) for name, values in ms.items()}
    if "inductor copy" in ms:
        return {"ms": medians, "share_us": shares(ms), "share_with_reader_us": shares(ms, "+")}
    return {"ms": medians, **{n: ratio(ms, n, "inductor") for n in NORMS}}


def show(cells: dict[str, Any], threads: int) -> None:
    """Both tables, and the sums that the claim is about."""
    table = Table(title=f"microseconds above a copy, {threads} threads; (with the linear behind)")
    for head in ("rows x width", *KINDS):
        table.add_column(head, justify="right")
    sums = dict.fromkeys(KINDS, 0.0)
    for key, row in cells.items():
        if not key.startswith("kernel/"):
            continue
        alone, reader = row["summary"]["share_us"], row["summary"]["share_with_reader_us"]
        table.add_row(
            key.removeprefix("kernel/"), *(f"{alone[k]:.0f} ({reader[k]:.0f})" for k in KINDS)
        )
        sums = {k: sums[k] + alone[k] for k in KINDS}
    table.add_row("sum", *(f"{sums[k]:.0f}" for k in KINDS), end_section=True)
    if sums["inductor layer"]:
        table.add_row(
            "of inductor layer", *(f"{sums[k] / sums['inductor layer']:.2f}" for k in KINDS)
        )
    console.print(table)
    table = Table(title="whole models: time over Inductor's, median and 95 % interval")
    for head in ("model", "inductor ms", *NORMS):
        table.add_column(head, no_wrap=True)
    for key, row in cells.items():
        if not key.startswith("kernel/"):
            s = row["summary"]
            table.add_row(key, f"{s['ms']['inductor']:.2f}", *(interval(s[n]) for n in NORMS))
    console.print(table)


def main() -> int:
    """Measure what is missing, keep it, show all."""
    given = options(__doc__, OUT, "globs of kind/rows/width", rounds=9)
    if given.one:
        task = json.loads(given.one)
        print(json.dumps(times(Case(**task["case"]), task["threads"], task["rounds"])))
        return 0
    asked = [
        c
        for c in (QUICK if given.quick else CASES)
        if any(fnmatch.fnmatch(c.key, glob) for glob in given.cells)
    ]

    def measured(case: Case) -> dict[str, Any]:
        task = {"case": asdict(case), "threads": given.threads, "rounds": given.rounds}
        with console.status(case.key):
            row = child("norms.py", task, given.threads)
        done = {"commit": commit(), "at": time.strftime("%Y-%m-%d %H:%M")}
        return {"case": asdict(case), **row, "summary": summary(row), **done}

    head = {"machine": machine(given.threads, "transformers")}
    cells, lost = resumed(
        asked,
        given.out,
        head,
        given.again,
        measured,
        lambda text: console.print(text, markup=False),
    )
    show(cells, given.threads)
    return int(lost)


if __name__ == "__main__":
    sys.exit(main())
