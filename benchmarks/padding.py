"""Ragged batches: padding removal beside Inductor, ONNX Runtime and OpenVINO.

    python benchmarks/padding.py [--cells 'encoder/uniform/*'] [--rounds 7] [--again] [--quick]
                                 [--out docs/measurements/padding.json]

A cell is kind/lengths/padded length/fill (`padding_contestants.py` says who runs): BERT-base layers
with random weights, sequences whose lengths are drawn uniformly, log-normally or all equal, and
whose mean is `fill` of the padded length. All contestants of a cell run in one process, checked
against eager at the real tokens, then in turn in another order each round (`measure.py`). The peak
memory of a steady call is taken in a process of its own.

Cells in the JSON are not measured again, unless `--again`; those of another machine or of other
versions are dropped. `--quick` tries everything on tiny cells and keeps nothing without `--out`.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import statistics
import sys
import time
from dataclasses import asdict
from typing import Any

from measure import (
    MEASUREMENTS,
    child,
    commit,
    in_turn,
    interval,
    machine,
    options,
    ratio,
    resident_mb,
    resumed,
    settle,
)
from padding_contestants import Case
from rich.console import Console
from rich.table import Table

OUT = MEASUREMENTS / "padding.json"
CALLS = 3  # of which the peak memory is the median
console = Console(width=max(Console().width, 150))

CASES = (
    *(Case("encoder", "uniform", n, 0.6) for n in (128, 256, 512, 1024)),
    *(Case("encoder", "lognormal", n, 0.6) for n in (128, 256, 512, 1024)),
    *(
        Case("encoder", d, n, f)
        for n in (256, 512)
        for d in ("uniform", "lognormal")
        for f in (0.3, 0.9)
    ),
    *(Case("encoder", d, n, f) for n in (128, 1024) for d in ("uniform",) for f in (0.3, 0.9)),
    *(Case("encoder", "equal", n, 1.0) for n in (128, 256, 512)),
    Case("encoder", "equal", 256, 0.6),
    *(Case("classifier", "equal", n, 1.0, 4) for n in (128, 256)),
    Case("classifier", "uniform", 256, 0.6, 4),
    *(Case("training", "uniform", 256, f) for f in (0.3, 0.6, 0.9)),
)
QUICK = (
    Case("encoder", "uniform", 16, 0.6, 1),
    Case("encoder", "equal", 16, 1.0, 1),
    Case("classifier", "lognormal", 16, 0.6, 1),
    Case("training", "uniform", 16, 0.6, 1),
)
MEMORY = ("ours", "inductor")


def measure(case: Case, given: argparse.Namespace) -> dict[str, Any]:
    """All of one cell."""
    task = {"case": asdict(case), "threads": given.threads}
    with console.status(f"{case.key}: times"):
        row = child("padding.py", {**task, "rounds": given.rounds}, given.threads)
    row["peak_mb"] = {}
    for name in MEMORY:
        with console.status(f"{case.key}: memory of {name}"):
            row["peak_mb"][name] = child("padding.py", {**task, "peak": name}, given.threads)
    return {"case": asdict(case), **row, "commit": commit(), "at": time.strftime("%Y-%m-%d %H:%M")}


def times(case: Case, threads: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of each contestant by round. Runs in a process of its own."""
    import torch
    from padding_contestants import TOLERANCE, apart, drawn, names, prepare

    from formwright.compiler import collect

    torch.set_num_threads(threads)
    load = os.getloadavg()[0]
    calls, apart_by, failed = {}, {}, {}
    variants: list[str] = []
    expected: Any = None
    for name in names(case):
        torch.compiler.reset()
        try:
            with collect() as report:
                call = prepare(name, case, threads)
                found = call()
            if name == "ours":
                variants = [v.name for v in report.variants]
            if found is not None:
                expected = found if expected is None else expected
                apart_by[name] = apart(found, expected, case)
                if apart_by[name] > TOLERANCE:
                    failed[name] = f"wrong: {apart_by[name]:.1e} of the largest value from eager"
                    continue
            calls[name] = call
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            failed[name] = f"{type(error).__name__}: {lines[0][:300]}"
            if name == "eager":
                raise
    lengths = drawn(case)
    return {
        "lengths": lengths.tolist(),
        "real_fill": lengths.sum().item() / (len(lengths) * case.length),
        "load_before": load,
        "ms": in_turn(calls, rounds),
        "apart": apart_by,
        "variants": variants,
        "failed": failed,
    }


def peak(name: str, case: Case, threads: int) -> float:
    """By how much the peak of a steady call lies above the memory just before it, in MiB."""
    import torch
    from padding_contestants import prepare

    torch.set_num_threads(threads)
    call = prepare(name, case, threads, arena=False)
    call()
    call()
    peaks = []
    for _ in range(CALLS):
        before = settle()
        kept = call()
        peaks.append(resident_mb("VmHWM") - before)
        del kept
    return statistics.median(peaks)


# --- the table ----------------------------------------------------------------------------------

RATIOS = {
    "ours / floor": ("ours", "floor"),
    "inductor / ours": ("inductor", "ours"),
    "trimmed / ours": ("trimmed", "ours"),
    "sorted / ours": ("sorted", "ours"),
    "ort / ours": ("ort", "ours"),
    "openvino / ours": ("openvino", "ours"),
    "undemanded / ours": ("undemanded", "ours"),
}


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """What is read off a cell: medians, ratios with intervals, memory."""
    ms, without = row["ms"], None
    if {"ours", "floor", "attention"} <= set(ms):
        rest = [a - b for a, b in zip(ms["ours"], ms["attention"], strict=True)]
        without = ratio({"rest": rest, "floor": ms["floor"]}, "rest", "floor")
    return {
        "ms": {name: statistics.median(values) for name, values in ms.items()},
        **{what: ratio(ms, *pair) for what, pair in RATIOS.items()},
        "ours - attention / floor": without,
        "peak ours / inductor": row["peak_mb"]["ours"] / row["peak_mb"]["inductor"],
    }


def show(cells: dict[str, Any], threads: int) -> None:
    """The table of all cells."""
    table = Table(title=f"ragged batches, {threads} threads; median ratios, their 95 % intervals")
    shown = ("ours / floor", "ours - attention / floor", *list(RATIOS)[1:])
    for head in ("cell", "ours ms", *shown, "peak ours / inductor"):
        above, _, below = head.rpartition(" / ")
        table.add_column(f"{above} /\n{below}" if above else head, no_wrap=True)
    for key, row in cells.items():
        s = row["summary"]
        texts = [f"{s['ms']['ours']:.1f}" if "ours" in s["ms"] else "failed"]
        texts += [interval(s[what]) if s[what] else "-" for what in shown]
        table.add_row(key, *texts, f"{s['peak ours / inductor']:.2f}")
    console.print(table)
    for key, row in cells.items():
        for name, why in row["failed"].items():
            console.print(f"{key}: {name} failed: {why}", markup=False)


def main() -> int:
    """Measure what is missing, keep it, show all."""
    given = options(__doc__, OUT, "globs of kind/lengths/L/fill")
    if given.one:
        task = json.loads(given.one)
        case = Case(**task["case"])
        if "peak" in task:
            print(json.dumps(peak(task["peak"], case, task["threads"])))
        else:
            print(json.dumps(times(case, task["threads"], task["rounds"])))
        return 0
    cases = QUICK if given.quick else CASES
    asked = [c for c in cases if any(fnmatch.fnmatch(c.key, glob) for glob in given.cells)]
    head = {"machine": machine(given.threads, "transformers")}

    def measured(case: Case) -> dict[str, Any]:
        row = measure(case, given)
        return {**row, "summary": summary(row)}

    def say(text: str) -> None:
        console.print(text, markup=False)

    cells, lost = resumed(asked, given.out, head, given.again, measured, say)
    show(cells, given.threads)
    return int(lost)


if __name__ == "__main__":
    sys.exit(main())
