"""Databases for `service.py` that look as searches leave them, written quickly.

A trial has an architecture of its own, ten metrics, details and three events; the front is kept.
Next: `service.py`.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from formwright.search import METRICS, SPACES, TASKS, Direction, SearchSpec, canonical
from formwright.service.store import open_store
from formwright.service.store.measured import undominated
from formwright.service.store.schema import (
    architectures,
    events,
    front,
    metrics,
    searches,
    trials,
)

SPEC = SearchSpec(trials=1000, objectives=("quality", "params", "latency_ms"), target="eager")
MEASURED = tuple(METRICS)[:10]
FEW = 50  # trials of a small search
PLAIN = 500  # architectures that the space has made; the others differ from one in a width
MACHINE = "m1:0123456789abcdef"


@dataclass(frozen=True)
class Filled:
    """A database: a search of a few trials, and one of all the others if there are any."""

    path: str
    small: str
    large: str
    trials: int  # of the large one


def filled(folder: str, size: int, many: int = 0) -> Filled:
    """A new one of so many trials; `many` searches more share as many again."""
    filler, path = Filler(f"{folder}/{size}.db"), f"{folder}/{size}.db"
    small = filler.search(FEW)
    large = filler.search(size, state="RUNNING") if size else small
    for _ in range(many):
        filler.search(size // many)
    filler.close()
    return Filled(path, small, large, size or FEW)


class Filler:
    """Adds searches to a database at `path`. What is random depends on `seed` only."""

    def __init__(self, path: str, seed: int = 0) -> None:
        open_store(path).close()
        self._raw = sqlite3.connect(path)
        for pragma in ("synchronous = OFF", "cache_size = -400000", "foreign_keys = OFF"):
            self._raw.execute(f"PRAGMA {pragma}")
        self._rng, self._plain = np.random.default_rng(seed), _plain(seed)
        self._made = seed * 10**7

    def search(
        self,
        count: int,
        spec: SearchSpec = SPEC,
        state: str = "SUCCEEDED",
        told: Sequence[Mapping[str, float]] = (),
    ) -> str:
        """The id of another search, of which so many trials have succeeded. `told` are some of
        their metrics; the others are random."""
        spec, id = replace(spec, trials=max(count, 1)), uuid.uuid4().hex
        now = datetime.now(UTC).replace(tzinfo=None).isoformat(" ")
        row = {"id": id, "request_id": id, "display_name": f"{count} trials", "asked": ""}
        row |= {"spec": spec.to_json(), "space": spec.space, "task": spec.task, "state": state}
        row |= {"error": "", "owner": "", "epoch": 1, "last_sequence": 2 + 3 * count}
        row |= {"succeeded": count, "created": now, "updated": now}
        key = self._insert(searches, [row])
        values = self._rng.random((count, len(MEASURED)))
        for number, known in enumerate(told):
            for name, value in known.items():
                values[number, MEASURED.index(name)] = value
        texts = [self._architecture() for _ in range(count)]
        self._insert(architectures, ({"fingerprint": f, "spec": text} for f, text in texts))
        self._insert(trials, (_trial(key, n, texts[n][0], now) for n in range(count)))
        self._insert(
            metrics,
            (
                {"search_key": key, "metric": name, "number": n, "value": float(values[n, at])}
                for at, name in sorted(enumerate(MEASURED), key=lambda pair: pair[1])
                for n in range(count)
            ),
        )
        self._insert(events, _events(key, values, state, now))
        signs = [
            -1.0 if METRICS[name].direction is Direction.MAXIMIZE else 1.0
            for name in spec.objectives
        ]
        columns = [MEASURED.index(name) for name in spec.objectives]
        best = undominated(values[:, columns] * signs)
        machine = MACHINE if any(METRICS[n].of_machine for n in spec.objectives) else ""
        self._insert(front, ({"search_key": key, "machine": machine, "number": n} for n in best))
        return id

    def grow(self, id: str) -> None:
        """One trial more of a search, committed; it joins no front."""
        now = datetime.now(UTC).replace(tzinfo=None).isoformat(" ")
        known = f"SELECT key, succeeded, last_sequence FROM {searches.name} WHERE id = ?"
        key, number, sequence = self._raw.execute(known, [id]).fetchone()
        fingerprint, text = self._architecture()
        self._insert(architectures, [{"fingerprint": fingerprint, "spec": text}])
        self._insert(trials, [_trial(key, number, fingerprint, now)])
        row = {"search_key": key, "number": number}
        self._insert(metrics, [row | {"metric": name, "value": 0.5} for name in MEASURED])
        events_of = list(_events(key, np.full((1, len(MEASURED)), 0.5), "RUNNING", now))[1:4]
        self._insert(
            events,
            [row | e | row | {"sequence": sequence + at} for at, e in enumerate(events_of, 1)],
        )
        self._raw.execute(
            f"UPDATE {searches.name} SET succeeded = succeeded + 1, last_sequence = ?"
            " WHERE key = ?",
            [sequence + 3, key],
        )
        self._raw.commit()

    def _insert(self, table: Any, rows: Iterable[Mapping[str, Any]]) -> int:
        """The key of the last row."""
        statement, last = "", 0
        rows = iter(rows)
        for first in rows:
            names = ", ".join(first)
            marks = ", ".join(f":{name}" for name in first)
            statement = f"INSERT INTO {table.name} ({names}) VALUES ({marks})"
            last = self._raw.execute(statement, first).lastrowid or 0
            break
        if statement:
            self._raw.executemany(statement, rows)
        return last

    def _architecture(self) -> tuple[str, str]:
        """Another one each time: fingerprint and text."""
        self._made += 1
        text = self._plain[self._made % len(self._plain)]
        text = re.sub(r'"width":\d+}$', f'"width":{self._made}}}', text)
        return "a1:" + hashlib.sha256(text.encode()).hexdigest(), text

    def close(self) -> None:
        """Durable from here on."""
        self._raw.commit()
        self._raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._raw.close()


def _plain(seed: int) -> list[str]:
    rng = random.Random(seed)
    signature = TASKS.load(SPEC.task).signature
    space = SPACES.load(SPEC.space).fitted(signature)
    made = set()
    for _ in range(PLAIN):
        genes = {gene.name: rng.choice(gene.choices) for gene in space.genes}
        made.add(canonical(space.decode(space.canonical(genes), signature)).to_json())
    return sorted(made)


def _trial(key: int, number: int, fingerprint: str, now: str) -> dict[str, Any]:
    details = {
        "seed": number,
        "machine": {"fingerprint": MACHINE, "cores": 2, "processor": "a processor of a kind"},
        "seconds": {"train": 1.25, "compile": 3.5, "measure": 0.75},
        "data": "d1:0123456789abcdef",
        "budget": {"steps": 300, "batch": 64},
    }
    return {
        "search_key": key,
        "number": number,
        "state": "SUCCEEDED",
        "attempt": 1,
        "rung": 0,
        "fingerprint": fingerprint,
        "machine": MACHINE,
        "params": '{"depth": 2, "width": 32}',
        "details": json.dumps(details),
        "error": "",
        "created": now,
        "updated": now,
    }


def _events(key: int, values: Any, state: str, now: str) -> Iterator[dict[str, Any]]:
    def event(sequence: int, number: int | None, payload: Any) -> dict[str, Any]:
        text = json.dumps(payload)
        return {"search_key": key, "sequence": sequence, "time": now} | {
            "number": number,
            "payload": text,
        }

    yield event(1, None, {"state": "RUNNING", "error": ""})
    for n, row in enumerate(values.tolist()):
        for step, told in enumerate(("PENDING", "RUNNING", "SUCCEEDED")):
            found = dict(zip(MEASURED, row, strict=True)) if step == 2 else {}
            new = {"state": told, "attempt": 1, "rung": 0, "error": "", "values": found}
            yield event(2 + 3 * n + step, n, new)
    yield event(2 + 3 * len(values), None, {"state": state, "error": ""})
