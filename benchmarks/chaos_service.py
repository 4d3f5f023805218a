"""Hundreds of kills: a real server, its scheduler, its Ray workers and its Ray are ended with
SIGKILL while clients submit, watch, cancel, pause and query.

    python benchmarks/chaos_service.py [--kills 300]

On a new database without Ray, on one with Ray, and on one that has 100,000 trials already. After
each is checked: nothing that was acknowledged is lost or changed, no trial is counted twice, events
have no gaps, every watcher saw each once, fronts are those of all trials, no process is left.
Measured: how soon a server was SERVING again, how long anything outlived its server, how long no
search moved. Exit code 1 if anything does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import measure
from rich.console import Console
from rich.table import Table

from formwright.search import Measurement, SearchSpec
from formwright.search.testing import a_trial
from formwright.service.records import SearchState
from formwright.service.store import open_store
from formwright.service.testing_chaos import GAPS_S, Report, chaos

OUT = measure.MEASUREMENTS / "chaos_service.json"
EACH = 50  # kills in one run, or a few more
LONG_S = ((0.05, 0.6), (0.6, 4.0), (6.0, 16.0), (10.0, 20.0))  # Ray takes its time to start


@dataclass(frozen=True)
class Case:
    """`shares` are of 20 kills how many are of whom; `trials` are there already."""

    name: str
    workers: int
    trials: int
    shares: dict[str, int]
    gaps: tuple[tuple[float, float], ...] = GAPS_S


CASES = (
    Case("alone", 0, 0, {"server": 12, "scheduler": 8}),
    Case("ray", 2, 0, {"server": 7, "scheduler": 5, "worker": 7, "raylet": 1}, LONG_S),
    Case("100k trials", 0, 100_000, {"server": 12, "scheduler": 8}),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=300, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a few, nothing kept")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    kills = 12 if given.quick else given.kills
    console, rows, runs = Console(), [], max(len(CASES), round(kills / EACH))
    for at in range(runs):
        case = CASES[at % len(CASES)]
        trials = case.trials // 100 if given.quick else case.trials
        count = kills // runs + (at < kills % runs)
        with tempfile.TemporaryDirectory() as folder:
            database = str(Path(folder, "searches.db"))
            fill(database, trials)
            report = chaos(
                Path(folder),
                shared(count, case.shares),
                workers=case.workers,
                seed=given.seed + at,
                database=database,
                gaps=case.gaps,
                told=lambda line, name=case.name: console.print(f"{name}: {line}"),
            )
        head = {"case": case.name, "workers": case.workers, "trials_before": trials}
        rows.append({**head, "load": round(os.getloadavg()[0], 1), **summary(report)})
        console.print(f"{case.name}: {report.wrong or 'nothing wrong'}")
        if not given.quick:
            head = {"commit": measure.commit(), "machine": measure.machine(1, "ray", "optuna")}
            kept = {**head, "worst": worst(rows), "runs": rows}
            given.out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    console.print(as_table(rows))
    return int(any(row["wrong"] for row in rows))


def shared(count: int, shares: dict[str, int]) -> dict[str, int]:
    """`count` by their shares; what is left over goes to the first."""
    found = {kind: count * share // sum(shares.values()) for kind, share in shares.items()}
    found[next(iter(shares))] += count - sum(found.values())
    return found


def fill(database: str, trials: int) -> None:
    """A search of so many trials that has ended: one that was made in order, and its rows again and
    again, which is faster; the first is the best of them."""
    if not trials:
        return
    store = open_store(database)
    store.create_search(SearchSpec(trials=trials, objectives=("quality", "params")), "")
    claim = store.claim("filler", 3600)
    if claim is None:
        raise SystemExit("the new search cannot be claimed")
    running = a_trial().started()
    best = Measurement({"quality": 1.0, "params": 1})
    store.log(claim).append(a_trial(), running, running.succeeded(best))
    rng, raw = random.Random(0), sqlite3.connect(database)
    for table in ("trials", "metrics", "events"):
        of = f"FROM formwright_{table} WHERE number = 0"
        rows = raw.execute(f"SELECT * {of}")
        names, known = [column[0] for column in rows.description], rows.fetchall()
        wanted = ", ".join("?" for _ in names)
        made = (
            tuple(_moved(dict(zip(names, row, strict=True)), at, rng).values())
            for at in range(1, trials)
            for row in known
        )
        raw.executemany(f"INSERT INTO formwright_{table} VALUES ({wanted})", made)
    last = "(SELECT max(sequence) FROM formwright_events)"
    raw.execute(f"UPDATE formwright_searches SET succeeded = ?, last_sequence = {last}", (trials,))
    raw.commit()
    raw.close()
    store.finish(claim, SearchState.SUCCEEDED)
    store.close()


def _moved(row: dict[str, Any], number: int, rng: random.Random) -> dict[str, Any]:
    row["number"] = number
    if "sequence" in row:
        row["sequence"] += 3 * number
    if row.get("metric") == "quality":
        row["value"] = rng.random()
    elif row.get("metric") == "params":
        row["value"] = rng.randrange(2, 10**6)
    return row


def summary(report: Report) -> dict[str, Any]:
    """The report with what its times say instead of the times."""
    row, times = asdict(report), sorted(report.back_s)
    row["back_s"] = {
        "starts": len(times),
        "median": round(statistics.median(times), 2),
        "p90": round(times[int(0.9 * (len(times) - 1))], 2),
        "longest": round(times[-1], 2),
    }
    return row | {name: round(row[name], 1) for name in ("gone_s", "still_s", "seconds")}


def worst(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over all runs."""
    return {
        "kills": sum(sum(row["kills"].values()) for row in rows),
        "back_s": max(row["back_s"]["longest"] for row in rows),
        "gone_s": max(row["gone_s"] for row in rows),
        "still_s": max(row["still_s"] for row in rows),
        "wrong": sum(len(row["wrong"]) for row in rows),
    }


def as_table(rows: list[dict[str, Any]]) -> Table:
    """For people."""
    table = Table("case", "killed", "searches", "trials", "SERVING again", "gone", "still", "wrong")
    for row in rows:
        back = row["back_s"]
        table.add_row(
            row["case"],
            ", ".join(f"{count} {kind}" for kind, count in row["kills"].items()),
            str(row["searches"]),
            str(row["finished"]),
            f"{back['median']} s, at most {back['longest']} s",
            f"{row['gone_s']} s",
            f"{row['still_s']} s",
            "; ".join(row["wrong"]) or "nothing",
        )
    return table


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    print(f"{time.monotonic() - started:.0f} s")
    raise SystemExit(code)
