"""How repeatable a latency is: the same architectures, measured again and again in turn.

    python benchmarks/latency.py [--rounds 7] [--target inductor]

Prints, for each architecture, the spread of the median and of its ratio to the reference over the
rounds, (highest - lowest) / median, and writes docs/measurements/latency.json. Other load on the
machine shows: repeat before you believe.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from formwright.search import TASKS, ArchSpec, BlockSpec, LayerSpec
from formwright.search.budget import Budget
from formwright.search.evaluate.evaluator import Evaluation, evaluate
from formwright.search.space.metaformer import MIXERS

OUT = Path(__file__).resolve().parent.parent / "docs" / "measurements" / "latency.json"
WIDTH = 48
TIMES = ("latency_ms", "latency_p95_ms", "latency_ratio")


def architecture(mixer: str) -> ArchSpec:
    layer = LayerSpec(
        MIXERS[mixer](WIDTH), BlockSpec.of("mlp", hidden=2 * WIDTH, activation="gelu"), "rms"
    )
    signature = TASKS.load("digits").signature
    return ArchSpec.of_images(signature.image, signature.classes, 2, WIDTH, (layer, layer))


def spread(values: list[float]) -> float:
    return (max(values) - min(values)) / statistics.median(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--target", default="inductor")
    given = parser.parse_args()
    names = [(round_, name) for round_ in range(given.rounds) for name in MIXERS]
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in MIXERS}
    machine = {}
    for _, name in track(names, "measuring", console=Console(stderr=True)):
        spec = Evaluation(
            architecture(name), "digits", Budget(1), 64, 1, given.target, 0, 900, metrics=TIMES
        )
        measured = evaluate(spec)
        machine = measured.details["machine"]
        samples[name].append(
            {
                "median_ms": measured.values["latency_ms"],
                "p95_ms": measured.values["latency_p95_ms"],
                "ratio": measured.values["latency_ratio"],
                "calls": measured.details["latency"]["samples"],
            }
        )
    table = Table("mixer", "median ms", "spread of it", "ratio", "spread of it")
    for name, rows in samples.items():
        medians, ratios = [r["median_ms"] for r in rows], [r["ratio"] for r in rows]
        numbers = (statistics.median(medians), statistics.median(ratios))
        cells = (f"{numbers[0]:.3f}", f"{spread(medians):.1%}")
        table.add_row(name, *cells, f"{numbers[1]:.2f}", f"{spread(ratios):.1%}")
    Console().print(table)
    record = {"machine": machine, "rounds": given.rounds, "batch": 64, "samples": samples}
    OUT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
