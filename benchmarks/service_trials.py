"""The cells `front` and `cycle` of `service.py`: against OSS Vizier and Optuna's gRPC proxy.

Contestants take turns, each in a process of its own that lives through all rounds, so that each has
had as many trials as the others. Next: `service_peers.py`, which those processes run.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import measure
import numpy as np
from service_fill import MEASURED, SPEC, Filler
from service_peers import OBJECTIVES

from formwright.search import SPACES, TASKS, SearchSpec
from formwright.service.store.measured import undominated

FRONT = 200  # trials
CYCLES, CALLS = 20, 10  # in a turn
SCRIPT = Path(__file__).with_name("service_peers.py")
Say = Callable[[str], None]


class Peer:
    """A contestant's process. Raises Failed if it does not start or ends."""

    def __init__(self, kind: str, python: str, task: dict[str, Any]) -> None:
        command = [python, str(SCRIPT), kind, json.dumps(task)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._kind = kind
        self.versions = self._line()

    def _line(self) -> Any:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise measure.Failed(f"{self._kind} ended with exit code {self._process.wait()}")
        return json.loads(line)

    def ask(self, what: str, count: int) -> list[float]:
        """Milliseconds of so many."""
        assert self._process.stdin
        self._process.stdin.write(f"{what} {count}\n")
        self._process.stdin.flush()
        found: list[float] = self._line()
        return found

    def end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()


def genes() -> dict[str, list[Any]]:
    """Of the space that all search."""
    space = SPACES.load(SPEC.space).fitted(TASKS.load(SPEC.task).signature)
    return {gene.name: list(gene.choices) for gene in space.genes}


def cycle(vizier: str, rounds: int, say: Say) -> dict[str, Any]:
    """Milliseconds of a durable trial by contestant and round."""
    contestants = {
        "ours, random": ("ours", sys.executable, {"sampler": "random"}),
        "ours, random, apart": ("ours", sys.executable, {"sampler": "random", "apart": True}),
        "vizier, random": ("vizier", vizier, {}),
        "ours, tpe": ("ours", sys.executable, {"sampler": "tpe"}),
        "optuna, tpe": ("optuna", sys.executable, {}),
    }
    asked = {"genes": genes(), "metrics": list(MEASURED)}
    return _in_turn(contestants, {"cycle": CYCLES}, asked, rounds, say)


def front(vizier: str, rounds: int, say: Say) -> dict[str, Any]:
    """Milliseconds of the front of 200 trials: of numbers by chance, and where all are on it."""
    spec, rng = SearchSpec(objectives=tuple(OBJECTIVES), target="eager"), random.Random(0)
    chance = [[rng.random() for _ in OBJECTIVES] for _ in range(FRONT)]
    contestants: dict[str, tuple[str, str, dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in {"by chance": chance, "all": [[a, a] for a, _ in chance]}.items():
            told = [dict(zip(OBJECTIVES, row, strict=True)) for row in rows]
            path = f"{folder}/{name}.db"
            filler = Filler(path)
            search, other = filler.search(FRONT, spec, told=told), filler.search(1)
            filler.close()
            on_it = len(undominated(np.array([[-up, down] for up, down in rows])))
            ours = {"front": path, "search": search, "other": other, "on_it": on_it}
            contestants[f"ours, {name}"] = ("ours", sys.executable, ours)
            theirs = {"values": told, "on_it": on_it}
            contestants[f"vizier, {name}"] = ("vizier", vizier, theirs)
        asked = {"genes": genes(), "metrics": list(MEASURED)}
        return _in_turn(contestants, {"front": CALLS, "again": CALLS}, asked, rounds, say)


def _in_turn(
    contestants: dict[str, tuple[str, str, dict[str, Any]]],
    questions: dict[str, int],
    asked: dict[str, Any],
    rounds: int,
    say: Say,
) -> dict[str, Any]:
    ms: dict[str, list[float]] = {}
    found: dict[str, Any] = {"ms": ms, "versions": {}, "failed": {}}
    peers: dict[str, Peer] = {}
    with ExitStack() as stack:
        for name, (kind, python, task) in contestants.items():
            if not python:
                found["failed"][name] = "no python was given that has it"
                continue
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            try:
                peers[name] = Peer(kind, python, {**asked, **task, "folder": folder})
            except measure.Failed as failed:
                found["failed"][name] = str(failed)
                continue
            stack.callback(peers[name].end)
            found["versions"][name] = peers[name].versions
        order, shuffle = list(peers), random.Random(0).shuffle
        for at in range(rounds):
            shuffle(order)
            for name in order:
                for what, count in questions.items():
                    if what == "again" and not name.startswith("ours"):
                        continue
                    turn = peers[name].ask(what, count)
                    key = f"{name}, read again" if what == "again" else name
                    ms.setdefault(key, []).append(round(statistics.median(turn), 3))
            say(f"{', '.join(questions)}: round {at + 1} of {rounds}")
    return found


def table(row: dict[str, Any], pairs: dict[tuple[str, str], float]) -> list[tuple[str, ...]]:
    """Contestant, ms in the first and in the last round, whom it is compared with, how many times
    faster ours is, the goal."""
    lines = []
    for name, ms in row["ms"].items():
        lines.append((name, f"{ms[0]:.2f}", f"{ms[-1]:.2f}", "", "", ""))
    for (mine, other), goal in pairs.items():
        found = measure.ratio(row["ms"], other, mine)
        if found:
            met = found[0] >= goal
            shown = measure.interval(found).replace("\n", "  ")
            shown = shown if met else f"[red]{shown}[/red]"
            lines.append((mine, "", "", other, shown, f"{goal:g}"))
    return lines + [(name, "failed", "", "", why, "") for name, why in row["failed"].items()]
