"""The service under load: reads, queries, fronts, durable trials, watches; against echo and peers.

    python benchmarks/service.py [--cells unary watch] [--vizier PYTHON] [--again]

Cells, each kept in the record as soon as it is measured:

- unary: single reads with 32 in flight, from databases of 0, 10k and 100k trials, as a share of
  what an empty echo server of the same grpcio answers to the same client; answers that are kept
  encoded and answers that are read apart (`service_reads.py` says how each is asked).
- queries: the best and the front of 100k trials, one call after the other.
- front: a front of 200 trials, against OSS Vizier's ListOptimalTrials.
- cycle: a trial that is proposed, started and finished, all on disk; against OSS Vizier and
  Optuna's gRPC proxy. Ours is what the scheduler does, which writes to the database itself: two
  transactions for a trial, or three with each step `apart`.
- watch: 50 events a second to 1,000 who watch, and one of them asleep.

Servers, writers and peers are processes of their own; what is compared takes turns. OSS Vizier
needs older versions of what it stands on: it is given by the Python of an environment of its own:

    python -m venv VENV && VENV/bin/pip install google-vizier==0.1.24 jax==0.4.35 jaxlib==0.4.35 \
        flax==0.10.2 "equinox<0.11.12" "jaxtyping<0.3" "optax<0.2.5" "tensorflow-probability[jax]" \
        sqlalchemy grpcio portpicker
    python benchmarks/service.py --vizier VENV/bin/python
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import measure
import service_reads
import service_trials
import service_watch
from rich.console import Console
from rich.table import Table
from service_fill import Filled, filled
from service_reads import MANY, Scale

OUT = measure.MEASUREMENTS / "service.json"
PACKAGES = ("grpcio", "protobuf", "sqlalchemy", "optuna")
ROUNDS, WATCHERS, WATCHED_S = 5, 1000, 8.0
CELLS = ("unary", "queries", "front", "cycle", "watch")
FRONTS = {
    (f"ours, {which}{way}", f"vizier, {which}"): 100.0
    for which in ("by chance", "all")
    for way in ("", ", read again")
}
TRIALS = {
    ("ours, random", "vizier, random"): 5.0,
    ("ours, random, apart", "vizier, random"): 5.0,
    ("ours, tpe", "optuna, tpe"): 10.0,
}
HEADS: dict[str, tuple[str, ...]] = {
    "unary": (
        "question",
        "trials",
        "a second",
        "of echo (0.60)",
        "p50 ms",
        "p99 ms (10)",
        "p99 to that at 0 (1.30)",
    ),
    "queries": ("question", "calls", "p50 ms", "p99 ms", "goal"),
    "front": ("contestant", "ms, first round", "last round", "against", "times faster", "goal"),
    "cycle": ("contestant", "ms, first round", "last round", "against", "times faster", "goal"),
    "watch": ("what", "measured", "goal"),
}


@dataclass(frozen=True)
class Case:
    key: str


class Bench:
    """What all cells share: how much is measured, and databases that are filled once."""

    def __init__(self, folder: str, given: Any, say: Callable[[str], None]) -> None:
        self._folder, self._say, self._vizier = folder, say, given.vizier
        self._scale = Scale(given.rounds, (0, 500), 0.3) if given.quick else Scale(given.rounds)
        self._watched = (50, 2.0) if given.quick else (WATCHERS, WATCHED_S)
        self._filled: dict[int, Filled] = {}

    def _databases(self) -> dict[int, Filled]:
        for size in self._scale.sizes:
            if size not in self._filled:
                self._say(f"filling a database with {size:,} trials")
                largest = size == max(self._scale.sizes)
                self._filled[size] = filled(self._folder, size, MANY if largest else 0)
        return self._filled

    def measured(self, case: Case) -> dict[str, Any]:
        rounds, say = self._scale.rounds, self._say
        if case.key == "unary":
            return service_reads.unary(self._databases(), self._scale, say)
        if case.key == "queries":
            return service_reads.queries(self._databases(), self._scale, say)
        if case.key == "watch":
            return service_watch.watch(*self._watched, rounds, say)
        run = service_trials.front if case.key == "front" else service_trials.cycle
        return run(self._vizier, rounds, say)


def lines(key: str, row: dict[str, Any]) -> Sequence[tuple[str, ...]]:
    """Of the table of a cell; what misses its goal is red."""
    if key == "unary":
        return service_reads.unary_table(row)
    if key == "queries":
        return service_reads.query_table(row)
    if key == "watch":
        return service_watch.table(row)
    return service_trials.table(row, FRONTS if key == "front" else TRIALS)


def main() -> int:
    more: dict[str, Any] = {
        "--only": {"nargs": "+", "metavar": "CELL", "help": "the same as --cells"},
        "--vizier": {"default": "", "metavar": "PYTHON", "help": "the one that has google-vizier"},
    }
    given = measure.options(__doc__, OUT, f"of {', '.join(CELLS)}", rounds=ROUNDS, more=more)
    wanted = given.only or given.cells
    asked = [Case(key) for key in CELLS if any(fnmatch(key, pattern) for pattern in wanted)]
    console = Console()
    head = {"commit": measure.commit(), "machine": measure.machine(1, *PACKAGES)}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder, given, console.print)
        rows, lost = measure.resumed(
            asked, given.out, head, given.again, bench.measured, console.print
        )
    for key, row in rows.items():
        table = Table(*HEADS[key], title=key)
        for line in lines(key, row):
            table.add_row(*line)
        console.print(table)
    return int(lost)


if __name__ == "__main__":
    raise SystemExit(main())
