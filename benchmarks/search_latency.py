"""Latencies in a search: does compiling change the order, do they repeat, can layers be added up?

    python benchmarks/search_latency.py [--cells 'metaformer/*'] [--again] [--quick]
                                        [--out docs/measurements/search_latency.json]

Random architectures for digits, batch 64, one thread, Inductor. Each is measured in a process of
its own, compiled and as it is; some of them in a second process again; and predicted from layers,
which are measured where they have not been yet (in the user's cache). The first `KNOWN` of a space
fit the prediction's map; the others are held out. As nothing is trained here, the number of
parameters stands for quality where something is to be picked.
"""

from __future__ import annotations

import fnmatch
import json
import random
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from measure import MEASUREMENTS, child, commit, machine, options, resumed
from rich.console import Console
from rich.table import Table

from formwright.search import SPACES, TASKS, ArchSpec, SpecError, cost_of
from formwright.search.evaluate.calibrate import calibrated
from formwright.search.fidelity import kendall

OUT = MEASUREMENTS / "search_latency.json"
BATCH, THREADS, LIMIT_S = 64, 1, 1800
COUNTS = {"metaformer": 40, "hybrid_mamba": 16}
KNOWN = {"metaformer": 10, "hybrid_mamba": 0}  # of the second, the sum is taken as it is
TWICE = 10
RESAMPLES = 4000
console = Console()


@dataclass(frozen=True)
class Case:
    """`what` is "measured", "again" or "predicted"."""

    space: str
    number: int
    what: str
    target: str = "inductor"

    @property
    def key(self) -> str:
        return f"{self.space}/{self.number}/{self.what}"


def architectures(space: str, count: int) -> list[ArchSpec]:
    """The first different ones that are drawn."""
    of, signature = SPACES.load(space, "space"), TASKS.load("digits").signature
    draw, found = random.Random(0), {}
    while len(found) < count:
        try:
            made = of.decode(of.sample(draw), signature)
        except SpecError:
            continue
        found[made.fingerprint()] = made
    return list(found.values())


# --- one cell, in a process of its own ----------------------------------------------------------


def one(case: Case) -> dict[str, Any]:
    spec = architectures(case.space, case.number + 1)[case.number]
    started = time.monotonic()
    row = predicted(spec, case.target) if case.what == "predicted" else measured(spec, case.target)
    return {**row, "seconds": round(time.monotonic() - started, 2), "failed": {}}


def measured(spec: ArchSpec, target: str) -> dict[str, Any]:
    import torch

    from formwright.search import build
    from formwright.search.evaluate import latency
    from formwright.search.evaluate.failure import Deadline
    from formwright.search.evaluate.timing import in_turn

    torch.manual_seed(0)
    model, example = build(spec), torch.randn(BATCH, *spec.signature.image)
    deadline = Deadline.after(LIMIT_S)
    found = latency.measure(model, example, target=target, threads=THREADS, deadline=deadline)
    with latency.measuring(THREADS):
        eager = in_turn(lambda: model(example), aim_s=latency.AIM_S, deadline=deadline)
    cost = cost_of(spec)
    return {
        "short": spec.short(),
        "fingerprint": spec.fingerprint(),
        "ms": found.median_ms,
        "p95_ms": found.p95_ms,
        "ratio": found.ratio,
        "eager_ms": eager.median_ms,
        "eager_ratio": eager.ratio,
        "params": cost.params,
        "flops": cost.flops,
        "compile_s": round(found.compile_s, 2),
        "record": found.record(),
        "machine": found.machine.fingerprint,
    }


def predicted(spec: ArchSpec, target: str) -> dict[str, Any]:
    from formwright.search.evaluate.failure import Deadline
    from formwright.search.evaluate.layer_latency import predict

    deadline = Deadline.after(LIMIT_S)
    found = predict(spec, batch=BATCH, threads=THREADS, target=target, deadline=deadline)
    once = found.median_ms / found.ratio  # ms of a call of the reference
    added = sum(found.parts.values())
    return {"ms": added, "ratio": added / once, "parts": dict(found.parts), "new": found.new}


# --- what the cells say -------------------------------------------------------------------------


def rows_of(cells: dict[str, Any], space: str, *whats: str) -> dict[int, tuple[Any, ...]]:
    """By number, where all of these cells are there."""
    numbers = sorted({int(key.split("/")[1]) for key in cells if key.startswith(f"{space}/")})
    keys = {n: [f"{space}/{n}/{what}" for what in whats] for n in numbers}
    return {n: tuple(cells[k] for k in at) for n, at in keys.items() if all(k in cells for k in at)}


def orders(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the ranking of the models as they are is worth for compiled ones."""
    compiled, eager = ([row[name] for row in rows] for name in ("ratio", "eager_ratio"))
    agreement = kendall(compiled, eager, resamples=RESAMPLES)
    speedups = sorted(e / c for e, c in zip(eager, compiled, strict=True))
    return {
        "models": len(rows),
        "tau": [agreement.tau, agreement.low, agreement.high],
        "other_picks": other_picks(rows),
        "front_in_common": common(front(rows, "ratio"), front(rows, "eager_ratio")),
        "speedup": [speedups[0], statistics.median(speedups), speedups[-1]],
    }


def other_picks(rows: list[dict[str, Any]]) -> float:
    """The share of budgets under which another architecture has the most parameters. A budget is
    one of the latencies; of the models as they are it allows as many."""
    others = 0
    for allowed in range(1, len(rows) + 1):
        picks = []
        for name in ("ratio", "eager_ratio"):
            within = sorted(rows, key=lambda row: row[name])[:allowed]
            picks.append(max(within, key=lambda row: row["params"])["fingerprint"])
        others += picks[0] != picks[1]
    return others / len(rows)


def front(rows: list[dict[str, Any]], name: str) -> set[str]:
    """Those that no faster one has as many parameters as."""
    found, most = set(), -1
    for row in sorted(rows, key=lambda row: (row[name], -row["params"])):
        if row["params"] > most:
            most = row["params"]
            found.add(row["fingerprint"])
    return found


def common(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def repeats(pairs: list[tuple[Any, ...]]) -> dict[str, Any]:
    """How far the second process was from the first: the median and the worst."""
    found: dict[str, Any] = {"models": len(pairs)}
    for name in ("ms", "ratio"):
        apart = [abs(b[name] / a[name] - 1) for a, b in pairs]
        found[name] = [statistics.median(apart), max(apart)]
    return found


def additive(pairs: dict[int, tuple[Any, ...]], first: int) -> dict[str, Any]:
    """Errors of the prediction on models that were held out, and how well it ranks them beside
    FLOPs and parameters: tau, and by how much it is above theirs, with 95 % intervals."""
    known = [(p["ratio"], m["ratio"]) for n, (m, p) in pairs.items() if n < first]
    held = [pair for n, pair in pairs.items() if n >= first]
    map_ = calibrated(known)
    truth = [m["ratio"] for m, _ in held]
    guesses = [map_(p["ratio"]) for _, p in held]
    errors = [abs(g / t - 1) for g, t in zip(guesses, truth, strict=True)]
    raw = [abs(p["ratio"] / m["ratio"] - 1) for m, p in held]
    in_ms = [abs(p["ms"] / m["ms"] - 1) for m, p in held]
    inside = [abs(t / g - 1) <= map_.error for g, t in zip(guesses, truth, strict=True)]
    proxies = {name: [m[name] for m, _ in held] for name in ("flops", "params")}
    mine = kendall(guesses, truth, resamples=RESAMPLES)
    return {
        "known": len(known),
        "held_out": len(held),
        "median_error": statistics.median(errors),
        "worst_error": max(errors),
        "median_error_of_the_sum": statistics.median(raw),
        "median_error_of_the_sum_in_ms": statistics.median(in_ms),
        "map": [float(map_.offset), float(map_.slope), float(map_.error)],
        "inside_the_interval": sum(inside) / len(inside),
        "tau": [mine.tau, mine.low, mine.high],
        **{name: above(truth, guesses, proxy) for name, proxy in proxies.items()},
    }


def above(truth: list[float], guesses: list[float], proxy: list[float]) -> dict[str, Any]:
    """Tau of a proxy, and the difference over models drawn anew, the same for both."""
    theirs = kendall(proxy, truth, resamples=RESAMPLES)
    t, g, p = (np.asarray(x, float) for x in (truth, guesses, proxy))
    draw, differences = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        at = draw.integers(0, len(t), len(t))
        differences.append(tau(g[at], t[at]) - tau(p[at], t[at]))
    low, high = np.nanquantile(differences, [0.025, 0.975])
    difference = tau(g, t) - tau(p, t)
    return {
        "tau": [theirs.tau, theirs.low, theirs.high],
        "ours_above": [float(difference), float(low), float(high)],
    }


def tau(a: Any, b: Any) -> float:
    """Kendall's tau-b."""
    x, y = np.sign(a[:, None] - a), np.sign(b[:, None] - b)
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


def summary(cells: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for space in COUNTS:
        whole = [row for (row,) in rows_of(cells, space, "measured").values()]
        twice = list(rows_of(cells, space, "measured", "again").values())
        both = rows_of(cells, space, "measured", "predicted")
        said = {}
        if len(whole) > 4:
            said["orders"] = orders(whole)
        if twice:
            said["repeats"] = repeats(twice)
        if len([n for n in both if n >= KNOWN[space]]) > 4:
            said["additive"] = additive(both, KNOWN[space])
        found[space] = said
    return found


def show(found: dict[str, Any]) -> None:
    table = Table("space", "question", "answer")
    for space, said in found.items():
        for question, answers in said.items():
            for name, value in answers.items():
                table.add_row(space, f"{question}: {name}", rounded(value))
    console.print(table)


def rounded(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name} {rounded(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return " ".join(map(rounded, value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> int:
    """Measure what is missing, keep it, show all."""
    given = options(__doc__, OUT, "globs of space/number/what")
    if given.one:
        print(json.dumps(one(Case(**json.loads(given.one)))))
        return 0
    target = "eager" if given.quick else "inductor"
    cases = []
    for space, count in COUNTS.items():
        numbers = range(min(count, 16) if given.quick else count)
        cases += [Case(space, n, "measured", target) for n in numbers]
        if space == "metaformer":
            cases += [Case(space, n, "again", target) for n in numbers[:TWICE]]
        cases += [Case(space, n, "predicted", target) for n in numbers]
    asked = [c for c in cases if any(fnmatch.fnmatch(c.key, glob) for glob in given.cells)]

    def found(case: Case) -> dict[str, Any]:
        with console.status(case.key):
            row = child("search_latency.py", asdict(case), THREADS)
        return {**row, "commit": commit(), "at": time.strftime("%Y-%m-%d %H:%M")}

    head = {"machine": machine(THREADS), "batch": BATCH, "target": target}
    cells, lost = resumed(asked, given.out, head, given.again, found, console.print)
    said = summary(cells)
    if given.out and given.out.exists():
        data = json.loads(given.out.read_text(encoding="utf-8"))
        said = summary(data["cells"])
        given.out.write_text(json.dumps({**data, "summary": said}, indent=1) + "\n", "utf-8")
    show(said)
    return int(lost)


if __name__ == "__main__":
    sys.exit(main())
