"""Trials an hour where a trial takes 50 ms: ours, Ray Tune with OptunaSearch, Optuna with joblib.

    python benchmarks/search_rate.py [--cells ours]

The same genome (the space metaformer), the same sampler (TPE of two objectives), two workers on the
same cores, and an objective that sleeps. Contestants take turns, each in a process of its own; the
time runs from the first trial's begin to the last one's end, so that nobody pays for starting Ray.
Ours is kept in a file that is synced before a result counts; Tune has its default storage; Optuna
has its journal in a file, which is what several processes share. The goals: 20 times Ray Tune, and
not below Optuna.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
from rich.console import Console
from rich.table import Table

from formwright.search import SPACES, TASKS, FileLog, Measurement, SearchSpec, canonical, drive
from formwright.search.evaluate.evaluator import Evaluation

OUT = measure.MEASUREMENTS / "search_rate.json"
SLEEP_S, TRIALS, WORKERS = 0.05, 60, 2
CONTESTANTS = ("ours", "tune", "optuna")
PACKAGES = ("ray", "optuna", "joblib")


@dataclass(frozen=True)
class Case:
    contestant: str

    @property
    def key(self) -> str:
        return self.contestant


def slept(fingerprint: str) -> tuple[float, float, float, float]:
    """Begin, end and the two values of a trial."""
    began = time.time()
    time.sleep(SLEEP_S)
    number = int(fingerprint[3:11], 16)
    return began, time.time(), number % 97 / 97, float(number % 89)


def fingerprint_of(genes: dict[str, Any]) -> str:
    space = SPACES.load("metaformer")
    made = space.decode(space.canonical(genes), TASKS.load("digits").signature)
    return canonical(made).fingerprint()


def ours(trials: int) -> list[tuple[float, float]]:
    from formwright.search.run.ray_pool import RayPool

    def evaluate(evaluation: Evaluation) -> Measurement:
        began, ended, quality, latency = slept(evaluation.architecture.fingerprint())
        values = {"quality": quality, "latency_ms": latency}
        return Measurement(values, {"began": began, "ended": ended})

    spec = SearchSpec(trials=trials, objectives=("quality", "latency_ms"), target="eager")
    with tempfile.TemporaryDirectory() as folder:
        log, pool = FileLog(f"{folder}/log.jsonl", spec), RayPool(evaluate, WORKERS)
        try:
            drive(spec, pool, log)
        finally:
            pool.close()
        return [(t.details["began"], t.details["ended"]) for t in log.history()]


def tune(trials: int) -> list[tuple[float, float]]:
    import ray
    from ray import tune as ray_tune
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.optuna import OptunaSearch

    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)

    def objective(config: dict[str, Any]) -> dict[str, float]:
        began, ended, quality, latency = slept(fingerprint_of(config))
        return {"quality": quality, "latency_ms": latency, "began": began, "ended": ended}

    genes = SPACES.load("metaformer").genes
    space = {gene.name: ray_tune.choice(list(gene.choices)) for gene in genes}
    search = OptunaSearch(metric=["quality", "latency_ms"], mode=["max", "min"])
    with tempfile.TemporaryDirectory() as folder:
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(objective, {"cpu": 1}),
            param_space=space,
            tune_config=ray_tune.TuneConfig(
                search_alg=ConcurrencyLimiter(search, WORKERS),
                num_samples=trials,
                max_concurrent_trials=WORKERS,
            ),
            run_config=ray_tune.RunConfig(storage_path=folder, verbose=0),
        )
        found = [result.metrics for result in tuner.fit()]
    ray.shutdown()
    return [(m["began"], m["ended"]) for m in found]


def part(path: str, trials: int) -> list[tuple[float, float]]:
    """What one process of Optuna's does."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name="rate", storage=JournalStorage(JournalFileBackend(path)))
    rows: list[tuple[float, float]] = []

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        genes = SPACES.load("metaformer").genes
        picked = {g.name: trial.suggest_categorical(g.name, g.choices) for g in genes}
        began, ended, quality, latency = slept(fingerprint_of(picked))
        rows.append((began, ended))
        return quality, latency

    study.optimize(objective, n_trials=trials)
    return rows


def optuna(trials: int) -> list[tuple[float, float]]:
    import optuna as library
    from joblib import Parallel, delayed
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/journal.log"
        library.create_study(
            study_name="rate",
            storage=JournalStorage(JournalFileBackend(path)),
            directions=["maximize", "minimize"],
        )
        work = Parallel(n_jobs=WORKERS)
        work(delayed(time.sleep)(0.1) for _ in range(WORKERS))
        parts = work(delayed(part)(path, trials // WORKERS) for _ in range(WORKERS))
    return [row for rows in parts for row in rows]


def one(case: Case, trials: int) -> float:
    """Seconds a trial, from the first begin to the last end."""
    rows = {"ours": ours, "tune": tune, "optuna": optuna}[case.contestant](trials)
    if len(rows) < trials:
        raise measure.Failed(f"{len(rows)} of {trials} trials")
    return (max(ended for _, ended in rows) - min(began for began, _ in rows)) / len(rows)


def main() -> int:
    given = measure.options(__doc__, OUT, "contestants", rounds=5)
    if given.one:
        task = json.loads(given.one)
        print(json.dumps(one(Case(task["contestant"]), task["trials"])))
        return 0
    console, trials = Console(), 12 if given.quick else TRIALS
    head = {"commit": measure.commit(), "machine": measure.machine(1, *PACKAGES)}
    data: dict[str, Any] = {**head, "trials": trials, "seconds_a_trial": {}}
    for turn in range(given.rounds):
        for name in CONTESTANTS[turn % 3 :] + CONTESTANTS[: turn % 3]:
            task = {"contestant": name, "trials": trials}
            found = measure.child(Path(__file__).name, task, 1)
            data["seconds_a_trial"].setdefault(name, []).append(found)
            console.print(f"round {turn + 1} of {given.rounds}: {name} {found:.3f} s a trial")
    if given.out:
        given.out.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    table = Table("contestant", "trials an hour", "times ours")
    medians = {name: statistics.median(v) for name, v in data["seconds_a_trial"].items()}
    for name, value in medians.items():
        slower = measure.ratio(data["seconds_a_trial"], name, "ours")
        table.add_row(name, f"{3600 / value:,.0f}", measure.interval(slower) if slower else "")
    console.print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
