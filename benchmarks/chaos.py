"""Hundreds of kills: a real search on Ray whose workers and drivers are ended with SIGKILL.

    python benchmarks/chaos.py [--kills 200] [--drivers 20]

After each search is checked: no result that was acknowledged is lost, none is counted twice, no
architecture is there twice, the log's recorded order gives the same suggestions, and with one
worker the whole is what it would have been undisturbed. Exit code 1 if anything does not hold.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import measure
from rich.console import Console
from rich.table import Table

from formwright.search.testing_chaos import chaos

OUT = measure.MEASUREMENTS / "chaos.json"
EACH = 50  # workers that are killed in one search


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=200, help="of workers, in all")
    parser.add_argument("--drivers", type=int, default=20, help="killed, in all")
    parser.add_argument("--quick", action="store_true", help="one small search, nothing kept")
    given = parser.parse_args()
    kills, drivers = (4, 1) if given.quick else (given.kills, given.drivers)
    console, rows, searches = Console(), [], max(1, kills // EACH)
    table = Table("workers", "killed", "drivers killed", "trials", "attempts", "wrong")
    for at in range(searches):
        share = [kills // searches, drivers // searches]
        with tempfile.TemporaryDirectory() as folder:
            report = chaos(
                Path(folder),
                workers=1 + at % 2,
                kills=share[0],
                drivers=share[1],
                seed=at,
                trials=max(20, 2 * share[0]),
                told=console.print,
            )
        rows.append({"workers": 1 + at % 2, **asdict(report)})
        row = (1 + at % 2, report.workers_killed, report.drivers_killed, report.finished)
        table.add_row(*map(str, row), str(report.attempts), "; ".join(report.wrong) or "nothing")
    if not given.quick:
        head = {"commit": measure.commit(), "machine": measure.machine(1, "ray", "optuna")}
        OUT.write_text(json.dumps({**head, "searches": rows}, indent=1) + "\n", encoding="utf-8")
    console.print(table)
    return int(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
