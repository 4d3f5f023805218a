"""How long an evaluator waits for its next trial: the whole price of proposing, recording and Ray.

    python benchmarks/search_idle.py [--cells 'random/*']

Each cell is a search of a process of its own, kept in a SQLite file with full synchronisation, with
Ray workers that do nothing (or sleep a second), which has 100, 1,000 or 10,000 finished trials
already. A worker's wait is from the end of one evaluation to the begin of the next, by its own
clock. The goals: a median of 10 ms, and 10,000 trials at most 1.5 times as long as 100.
"""

from __future__ import annotations

import fnmatch
import json
import os
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

import measure
from rich.console import Console
from rich.table import Table

from formwright.search import SPACES, TASKS, Measurement, SearchSpec, Trial, canonical, drive
from formwright.search.evaluate.evaluator import Evaluation
from formwright.search.run.ray_pool import RayPool
from formwright.service.store import open_store

OUT = measure.MEASUREMENTS / "search_idle.json"
FINISHED = (100, 1000, 10_000)
METRICS = ("quality", "latency_ms", "params")
SETS = {  # sampler: seconds of a trial, trials that are measured
    "random": (0.0, 200),
    "nsga2": (0.0, 200),
    "tpe": (1.0, 60),
}


@dataclass(frozen=True)
class Case:
    sampler: str
    finished: int
    workers: int

    @property
    def key(self) -> str:
        return f"{self.sampler}/{self.finished}/{self.workers}"


def scored(architecture_hash: str) -> dict[str, float]:
    number = int(architecture_hash[3:11], 16)
    return {"quality": number % 97 / 97, "latency_ms": number % 89 + 1.0, "params": number % 83}


def idle_of(sleep_s: float):  # type: ignore[no-untyped-def]
    def evaluate(evaluation: Evaluation) -> Measurement:
        began = time.time()
        if sleep_s:
            time.sleep(sleep_s)
        values = scored(evaluation.architecture.fingerprint())
        return Measurement(values, {"pid": os.getpid(), "began": began, "ended": time.time()})

    return evaluate


def filled(case: Case) -> list[Trial]:
    """So many distinct trials of the space, as they end."""
    import random

    space, signature = SPACES.load("metaformer"), TASKS.load("digits").signature
    rng, made, known = random.Random(1), [], set()
    while len(made) < case.finished:
        genes = space.sample(rng)
        architecture = canonical(space.decode(genes, signature))
        if architecture.fingerprint() not in known:
            known.add(architecture.fingerprint())
            made.append(Trial(len(made), genes, architecture))
    return made


def one(case: Case) -> dict[str, object]:
    """The waits, in ms."""
    sleep_s, more = SETS[case.sampler]
    spec = SearchSpec(trials=case.finished + more, sampler=case.sampler, target="eager")
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(f"{folder}/searches.db")
        store.create_search(spec, "")
        log = store.log(store.claim("benchmark", 3600))
        trials = filled(case)
        for at in range(0, len(trials), 250):
            block = []
            for trial in trials[at : at + 250]:
                values = scored(trial.architecture.fingerprint())
                started = trial.started()
                block += [trial, started, started.succeeded(Measurement(values))]
            log.append(*block)
        pool = RayPool(idle_of(sleep_s), case.workers)
        try:
            started_at = time.monotonic()
            drive(spec, pool, log)
            took = time.monotonic() - started_at
        finally:
            pool.close()
        new = [trial for trial in log.history() if trial.number >= case.finished]
        store.close()
    by_worker: dict[int, list[tuple[float, float]]] = {}
    for trial in new:
        d = trial.details
        by_worker.setdefault(d["pid"], []).append((d["began"], d["ended"]))
    waits = [
        (after[0] - before[1]) * 1e3
        for rows in by_worker.values()
        for before, after in pairwise(sorted(rows))
    ]
    return {"waits_ms": [round(wait, 3) for wait in waits], "seconds": round(took, 2), "failed": {}}


def main() -> int:
    given = measure.options(__doc__, OUT, "as in 'random/100/2': sampler, finished trials, workers")
    if given.one:
        print(json.dumps(one(Case(**json.loads(given.one)))))
        return 0
    cases = [Case(s, n, w) for s in SETS for n in FINISHED for w in (1, 2)]
    if given.quick:
        cases = [replace(case, finished=20) for case in cases if case.finished == FINISHED[0]]
    asked = [c for c in cases if any(fnmatch.fnmatch(c.key, cell) for cell in given.cells)]
    console = Console()
    head = {"commit": measure.commit(), "machine": measure.machine(1, "ray", "optuna")}

    def measured(case: Case) -> dict[str, object]:
        console.print(case.key)
        return measure.child(Path(__file__).name, asdict(case), 1)  # type: ignore[no-any-return]

    cells, lost = measure.resumed(asked, given.out, head, given.again, measured, console.print)
    table = Table("sampler", "finished", "workers", "median ms", "p95 ms", "trials a second")
    for case in asked:
        if case.key in cells:
            waits = sorted(cells[case.key]["waits_ms"])
            rate = len(waits) / cells[case.key]["seconds"]
            median, p95 = statistics.median(waits), waits[int(0.95 * len(waits))]
            row = (case.sampler, f"{case.finished:,}", str(case.workers))
            table.add_row(*row, f"{median:.1f}", f"{p95:.1f}", f"{rate:.0f}")
    console.print(table)
    return int(lost)


if __name__ == "__main__":
    raise SystemExit(main())
