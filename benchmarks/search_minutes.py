"""Time to an equal front where a trial takes a minute: our engine, plain Optuna, Ray Tune's price.

    python benchmarks/search_minutes.py [--seeds 10]

The learning curves are real: 288 architectures of a part of the space "metaformer" are trained on
handwritten digits, judged after 1/9, 1/3 and all of 150 steps, once, into search_curves.json. The
minutes are not: a clock is simulated on which the whole training takes a minute, and a part of it
that part. Our engine runs as it is (`drive`, TPE, ladders of two and of three rungs), with two
workers on that clock.
Plain Optuna (TPESampler, asked as a worker gets free) trains each proposal to its end; what it
proposes again costs nothing, which it would with it. Ray Tune with OptunaSearch is the same and
pays what search_rate.json has measured for each trial. For each seed the time is that at which the
hypervolume reaches what plain Optuna has after its last trial. The goal: 1.3 times less. Two rungs
were chosen with seeds 0 to 4 in view; those here are others.
"""

from __future__ import annotations

import argparse
import heapq
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import measure
from rich.console import Console
from rich.progress import track
from rich.table import Table

from formwright.search import (
    METRICS,
    SPACES,
    TASKS,
    Measurement,
    MemoryLog,
    SearchSpec,
    canonical,
    cost_of,
    drive,
)
from formwright.search.run.pool import Job, Outcome
from formwright.search.span import Span

OUT = measure.MEASUREMENTS / "search_minutes.json"
CURVES = measure.MEASUREMENTS / "search_curves.json"
RATE = measure.MEASUREMENTS / "search_rate.json"
STEPS, BATCH, SHARES = 150, 64, (1 / 9, 1 / 3, 1.0)
MINUTE, WORKERS, TRIALS = 60.0, 2, 60
OURS_S = 0.02  # what a job of ours waits, more than search_idle.json has
NAMES = ("quality", "params", "flops")
KNOBS = {"patch": 2, "norm": "rms", "depth": 2, "width": (16, 32)}
SPEC = SearchSpec(
    trials=3 * TRIALS,
    objectives=NAMES,
    knobs=("patch=2", "norm=rms", "depth=2", "width=16|32"),
    steps=STEPS,
    batch=BATCH,
    target="eager",
    keep=3,
)
LADDERS = {"2 rungs": 2, "3 rungs": 3}
FIRST = 10  # seed
console = Console()
Row = Mapping[str, Any]


def curves() -> dict[str, Row]:
    """Fingerprint -> quality on each rung, parameters, operations; trained where not there yet."""
    import tempfile

    from formwright.search.budget import Budget
    from formwright.search.evaluate.evaluator import Evaluation, evaluate, evaluation_seed

    data: dict[str, Any] = {"machine": measure.machine(1), "steps": STEPS, "rows": {}}
    if CURVES.exists():
        data = json.loads(CURVES.read_text(encoding="utf-8"))
    space = SPACES.load("metaformer").restricted(**KNOBS)
    signature = TASKS.load("digits").signature
    every = {}
    for genes in space.all():
        spec = canonical(space.decode(space.canonical(genes), signature))
        every[spec.fingerprint()] = spec
    missing = {name: spec for name, spec in every.items() if name not in data["rows"]}
    for at, (name, spec) in enumerate(track(missing.items(), "training", console=console)):
        seed = evaluation_seed(0, name)
        with tempfile.TemporaryDirectory() as folder:
            asked = Evaluation(
                *(spec, "digits", Budget(STEPS), BATCH, 1, "eager", seed, 3600),
                metrics=("quality",),
                checkpoint=folder,
            )
            found = [evaluate(replace(asked, until=share)).values for share in SHARES]
        cost = cost_of(spec)
        row = {"quality": [round(values["quality"], 6) for values in found]}
        data["rows"][name] = {**row, "params": cost.params, "flops": cost.flops}
        if at % 16 == 0 or at == len(missing) - 1:
            CURVES.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return {name: data["rows"][name] for name in every}


@dataclass(frozen=True)
class Valued:
    values: Mapping[str, float]


class Clocked:
    """Workers on a simulated clock, which look up what they would measure."""

    slots = WORKERS

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self._rows = rows
        self._running: list[tuple[float, int, Job]] = []
        self._trained: dict[str, float] = {}
        self.now = 0.0
        self.ended: list[tuple[float, Mapping[str, float]]] = []
        self._count = 0

    def submit(self, job: Job) -> None:
        name, until = job.evaluation.architecture.fingerprint(), job.evaluation.until
        share = until - self._trained.get(name, 0.0)
        self._trained[name] = until
        self._count += 1
        ends = self.now + OURS_S + MINUTE * share
        heapq.heappush(self._running, (ends, self._count, job))

    def wait(self, timeout_s: float) -> list[Outcome]:
        if not timeout_s or not self._running:  # somebody may still have something to start
            return []
        self.now, _, job = heapq.heappop(self._running)
        row, until = self._rows[job.evaluation.architecture.fingerprint()], job.evaluation.until
        rung = min(range(3), key=lambda at: abs(SHARES[at] - until))
        values = {"quality": row["quality"][rung], "params": row["params"], "flops": row["flops"]}
        if rung == 2:
            self.ended.append((self.now, values))
        return [Outcome(job, Measurement(values))]

    def stop(self) -> None:
        self._running = []

    def close(self) -> None:
        self.stop()


Ended = Sequence[tuple[float, Mapping[str, float]]]


def ours(rows: Mapping[str, Row], seed: int, rungs: int) -> Ended:
    pool = Clocked(rows)
    drive(replace(SPEC, seed=seed, rungs=rungs), pool, MemoryLog())
    return pool.ended


def plain(rows: Mapping[str, Row], seed: int, price_s: float) -> Ended:
    """Optuna as it comes, asked whenever one of the workers gets free."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = SPACES.load("metaformer").restricted(**KNOBS)
    signature = TASKS.load("digits").signature
    metrics = [METRICS[name] for name in NAMES]
    study = optuna.create_study(
        directions=[metric.direction.value for metric in metrics],
        sampler=optuna.samplers.TPESampler(seed=seed),
    )
    running: list[tuple[float, int, Any, Mapping[str, float]]] = []
    known: set[str] = set()
    ended: list[tuple[float, Mapping[str, float]]] = []
    now = 0.0
    while len(ended) < TRIALS:
        while len(running) < WORKERS:
            asked = study.ask()
            genes = {g.name: asked.suggest_categorical(g.name, g.choices) for g in space.genes}
            made = canonical(space.decode(space.canonical(genes), signature)).fingerprint()
            row = rows[made]
            values = {**row, "quality": row["quality"][2]}
            if made in known:  # it costs nothing here; its study is told the same again
                study.tell(asked, [values[name] for name in NAMES])
                continue
            known.add(made)
            heapq.heappush(running, (now + MINUTE + price_s, asked.number, asked, values))
        now, _, done, values = heapq.heappop(running)
        study.tell(done, [values[name] for name in NAMES])
        ended.append((now, values))
    return ended


def growth(ended: Ended, span: Span) -> list[tuple[float, float]]:
    """(time, hypervolume) after each trial."""
    found = [Valued(values) for _, values in ended]
    return [(at, span.share(found[: n + 1])) for n, (at, _) in enumerate(ended)]


def price() -> float:
    """Seconds that a worker of Ray Tune's spends around a trial."""
    data = json.loads(RATE.read_text(encoding="utf-8"))["seconds_a_trial"]["tune"]
    return statistics.median(data) * WORKERS - 0.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args()
    rows, tune_s = curves(), price()
    everything = [{**row, "quality": row["quality"][2]} for row in rows.values()]
    span = Span.of(map(Valued, everything), [METRICS[name] for name in NAMES])
    cells = []
    for seed in track(range(FIRST, FIRST + given.seeds), "searching", console=console):
        found = {name: ours(rows, seed, rungs) for name, rungs in LADDERS.items()}
        found |= {"optuna": plain(rows, seed, 0.0), "tune": plain(rows, seed, tune_s)}
        grown = {name: growth(ended, span) for name, ended in found.items()}
        aim = grown["optuna"][-1][1]
        reach = {
            name: next((at for at, share in steps if share >= aim), None)
            for name, steps in grown.items()
        }
        cells.append({"seed": seed, "aim": aim, "reach_s": reach, "growth": grown})
    head = {"commit": measure.commit(), "machine": measure.machine(1, "optuna")}
    data = {**head, "trials": TRIALS, "tune_price_s": tune_s, "cells": cells}
    OUT.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    table = Table("seed", "aim", *(f"{name}, min" for name in cells[0]["reach_s"]))
    for cell in cells:
        shown = [f"{at / 60:.1f}" if at else "never" for at in cell["reach_s"].values()]
        table.add_row(str(cell["seed"]), f"{cell['aim']:.4f}", *shown)
    console.print(table)
    for name in LADDERS:
        for peer in ("optuna", "tune"):
            reached = [cell["reach_s"] for cell in cells]
            ratios = [at[peer] / at[name] if at[name] else 0.0 for at in reached]
            median = statistics.median(ratios)
            console.print(f"{peer} / {name}: {median:.2f} ({min(ratios):.2f}..{max(ratios):.2f})")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
