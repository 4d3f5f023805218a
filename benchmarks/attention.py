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
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from attention_models import HEADS, KV_HEADS, LAYERS, LENGTHS, MODELS, RATIO, WIDTH, Case
from measure import (
    MEASUREMENTS,
    TURN_S,
    Failed,
    child,
    commit,
    in_turn,
    interval,
    machine,
    options,
    ratio,
    resumed,
)
from rich.console import Console
from rich.table import Table

OUT = MEASUREMENTS / "attention.json"
QUICK_LENGTHS, QUICK_WINDOW = (64, 128), 32
COMPARED = ("ours", "inductor")  # whose compile times are
console = Console(width=max(Console().width, 150))


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
    return {
        "batch": case.batch,
        "load_before": load,
        "ms": in_turn(calls, rounds),
        "apart": apart_by,
        "failed": failed,
    }


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
        **{what: ratio(row["ms"], *pair) for what, pair in RATIOS.items()},
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
            texts.append(interval(s[what]) if s[what] else "failed" if lost else "-")
        for what in ("peak ours / inductor", "cold ours / inductor"):
            texts.append(f"{s[what]:.2f}" if s[what] is not None else "-")
        share = s["passes / cold"]
        table.add_row(key, *texts, f"{share:.1%}" if share is not None else "-")
    console.print(table)
    for key, row in cells.items():
        for name, why in row["failed"].items():
            console.print(f"{key}: {name} failed: {why}", markup=False)


# --- the record ---------------------------------------------------------------------------------


def settings() -> dict[str, Any]:
    """What every cell has in common; batch, rounds and compiles are in the cells."""
    sizes = {"width": WIDTH, "heads": HEADS, "kv_heads_of_gqa": KV_HEADS, "mlp": RATIO}
    return {"layers": LAYERS, **sizes, "dtype": "float32", "turn_s": TURN_S}


def chosen(given: argparse.Namespace) -> Iterator[Case]:
    """The cells, shortest first within a model."""
    globs = [g if "/" in g else f"{g}/*" for g in given.cells]
    for model in MODELS:
        for length in given.lengths or (QUICK_LENGTHS if given.quick else LENGTHS[model]):
            case = Case(model, length, QUICK_WINDOW) if given.quick else Case(model, length)
            if any(fnmatch.fnmatch(case.key, g) for g in globs):
                yield case


MORE = {
    "--lengths": {"nargs": "+", "type": int},
    "--compiles": {"type": int, "help": "of ours and of inductor (3)"},
}


def main() -> int:
    given = options(__doc__, OUT, "model, or model/length", more=MORE)
    given.compiles = given.compiles or (1 if given.quick else 3)
    if given.one:
        task = json.loads(given.one)
        print(json.dumps(times(Case(**task["case"]), task["threads"], task["rounds"])))
        return 0
    asked = list(chosen(given))
    head = {"machine": machine(given.threads), "settings": settings()}

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
