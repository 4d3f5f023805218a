"""How much faster a search is with more workers: two that compute, sixty-four that wait.

    python benchmarks/search_scaling.py [--cells 'sleep/*']

A cell is a kind of trial and a number of workers, in a process of its own: "compute" keeps one core
busy for a fixed piece of work, "sleep" takes 1 to 3 seconds and no processor. Efficiency is work a
second with N workers over N times that with one, while every worker could have had some: from the
first begin to the last. Work is counted in pieces, and in seconds to sleep; of who still runs then,
the share that is done. The goals: 0.85 from 1 to 2 workers on two cores, 0.9 from 1 to 64.
"""

from __future__ import annotations

import fnmatch
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import measure
from rich.console import Console
from rich.table import Table

from formwright.search import FileLog, Measurement, SearchSpec, drive
from formwright.search.evaluate.evaluator import Evaluation
from formwright.search.run.ray_pool import RayPool

OUT = measure.MEASUREMENTS / "search_scaling.json"
WORK = 3_000_000  # turns of a loop, about a quarter of a second
CELLS = (("compute", 1, 40), ("compute", 2, 80), ("sleep", 1, 12), ("sleep", 64, 768))


@dataclass(frozen=True)
class Case:
    kind: str
    workers: int
    trials: int

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.workers}"


def evaluated(kind: str) -> Any:
    def evaluate(evaluation: Evaluation) -> Measurement:
        began = time.time()
        number = int(evaluation.architecture.fingerprint()[3:11], 16)
        if kind == "compute":
            total = 0
            work = 1.0
            for turn in range(WORK):
                total += turn
        else:
            work = 1.0 + number % 1000 / 500
            time.sleep(work)
        values = {"quality": number % 97 / 97, "latency_ms": number % 89, "params": number % 83}
        return Measurement(values, {"began": began, "ended": time.time(), "work": work})

    return evaluate


def one(case: Case) -> dict[str, Any]:
    spec = SearchSpec(trials=case.trials, sampler="random", target="eager")
    with tempfile.TemporaryDirectory() as folder:
        log, pool = (
            FileLog(f"{folder}/log.jsonl", spec),
            RayPool(evaluated(case.kind), case.workers),
        )
        try:
            drive(spec, pool, log)
        finally:
            pool.close()
        spans = [(t.details["began"], t.details["ended"], t.details["work"]) for t in log.history()]
    first, last = min(spans)[0], max(spans)[0]  # from there on there are too few
    done = sum(work * (min(ended, last) - began) / (ended - began) for began, ended, work in spans)
    seconds = statistics.mean(ended - began for began, ended, _ in spans)
    return {"work_a_second": done / (last - first), "seconds_a_trial": seconds, "failed": {}}


def main() -> int:
    given = measure.options(__doc__, OUT, "as in 'sleep/64'", rounds=3)
    if given.one:
        print(json.dumps(one(Case(**json.loads(given.one)))))
        return 0
    console = Console()
    cases = [Case(*cell) for cell in CELLS]
    if given.quick:
        cases = [Case(kind, min(w, 4), 4 * min(w, 4)) for kind, w, _ in CELLS]
    cases = [c for c in cases if any(fnmatch.fnmatch(c.key, cell) for cell in given.cells)]
    head = {"commit": measure.commit(), "machine": measure.machine(1, "ray", "optuna")}

    def measured(case: Case) -> dict[str, Any]:
        console.print(case.key)
        runs = [measure.child(Path(__file__).name, asdict(case), 1) for _ in range(given.rounds)]
        return {name: [run[name] for run in runs] for name in runs[0]} | {"failed": {}}

    cells, lost = measure.resumed(cases, given.out, head, given.again, measured, console.print)
    table = Table("trials", "workers", "work a second", "seconds each", "efficiency")
    for case in cases:
        alone = cells.get(f"{case.kind}/1")
        if case.key not in cells or alone is None:
            continue
        rate = statistics.median(cells[case.key]["work_a_second"])
        efficiency = rate / case.workers / statistics.median(alone["work_a_second"])
        seconds = statistics.median(cells[case.key]["seconds_a_trial"])
        row = (case.kind, str(case.workers), f"{rate:.2f}", f"{seconds:.2f}", f"{efficiency:.2f}")
        table.add_row(*row)
    console.print(table)
    return int(lost)


if __name__ == "__main__":
    raise SystemExit(main())
