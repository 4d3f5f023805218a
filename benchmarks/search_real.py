"""Hypervolume on a real task: whole searches of small image classifiers, five seeds a sampler.

    python benchmarks/search_real.py [--seeds 5] [--trials 40] [--quick]

Every candidate is really trained (handwritten digits, 100 steps of 64), on two Ray workers; what
another search with the same seed has trained answers. Quality is to be high, parameters and
operations low; the score is the share of the box of all trials that a front dominates, at equal
numbers of trials. With five seeds no test of significance is honest: the values are shown.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from typing import Any

import measure
from rich.console import Console
from rich.table import Table

from formwright.search import MemoryLog, Result, SearchSpec, make_pool, run_search
from formwright.search.span import Span

OUT = measure.MEASUREMENTS / "search_real.json"
SAMPLERS = ("random", "tpe", "nsga2")
SPEC = SearchSpec(objectives=("quality", "params", "flops"), steps=100, target="eager")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="two tiny searches, nothing kept")
    given = parser.parse_args()
    spec = replace(SPEC, trials=given.trials)
    if given.quick:
        given.seeds, spec = 1, replace(spec, trials=3, steps=3)
    found: dict[tuple[str, int], Result] = {}
    pool = make_pool(2)
    try:
        for seed in range(given.seeds):
            for sampler in SAMPLERS:
                log = MemoryLog(earlier=[r for (_, s), r in found.items() if s == seed])
                asked = replace(spec, sampler=sampler, seed=seed)
                found[sampler, seed] = run_search(asked, pool=pool, log=log)
    finally:
        pool.close()
    trials = [trial for result in found.values() for trial in result.succeeded]
    span = Span.of(trials, next(iter(found.values())).metrics)
    scores = {
        name: [found[name, s].hypervolume(span) for s in range(given.seeds)] for name in SAMPLERS
    }
    if not given.quick:
        data: dict[str, Any] = {"commit": measure.commit(), "machine": measure.machine(1, "optuna")}
        data |= {"spec": spec.to_dict(), "hypervolume": scores}
        OUT.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    table = Table("sampler", "median", "of each seed", title=f"{spec.trials} trials")
    for name, values in scores.items():
        each = ", ".join(f"{value:.3f}" for value in values)
        table.add_row(name, f"{statistics.median(values):.3f}", each)
    Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
