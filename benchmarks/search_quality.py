"""How good the front is after equally many evaluations: our samplers, chance, and plain Optuna.

    python benchmarks/search_quality.py [--problems digits hybrid] [--seeds 10] [--again] [--quick]
                                        [--history] [--out docs/measurements/search_quality.json]

Two problems whose values are looked up, so that only the sampler differs; quality is to be high,
parameters and operations low:

    digits   288 architectures of a part of the space "metaformer" (two layers), each really trained
             on handwritten digits for 150 steps of 64 from one seed. They are trained once, into
             docs/measurements/search_table.json
    hybrid   the space "hybrid_mamba" with one head of keys (or rules would forbid what plain Optuna
             proposes, again and again), its real parameters and operations, and an invented quality
             (`invented`) with interactions: larger is better with less and less gain, a little
             attention helps where it stands evenly and sees far, two layers of five mix channels
             best

A search makes `N` evaluations; ours never evaluates an architecture twice (as `run/candidates.py`
has it), plain Optuna (TPESampler and NSGAIISampler as they come, genes as categoricals) may, and
such a one counts as made. The score is the share of the box between the best and worst values of
all (of 3000 at random, for hybrid) that is dominated, over that of the true front where that is
known; seeds are paired, and p is that of a one-sided Wilcoxon signed-rank test. "to random's end"
is how many evaluations reach what random has after all. `--history` compares what it costs that
the history of tpe is capped, on 500 evaluations of hybrid.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from measure import MEASUREMENTS, commit, machine
from rich.console import Console
from rich.progress import track
from rich.table import Table

from formwright.search import METRICS, SPACES, TASKS, ArchSpec, Measurement, Trial, cost_of
from formwright.search import canonical as spelled
from formwright.search.propose import SAMPLERS
from formwright.search.space import Space
from formwright.search.span import Span

OUT, TABLE = MEASUREMENTS / "search_quality.json", MEASUREMENTS / "search_table.json"
STEPS, BATCH, RATE_SEED = 150, 64, 0
METRIC = [METRICS[name] for name in ("quality", "params", "flops")]
SIGNATURE = TASKS.load("digits").signature
OURS = ("random", "tpe", "nsga2", "exact")
PLAIN = {"optuna tpe": "TPESampler", "optuna nsga2": "NSGAIISampler"}
NOTHING = ArchSpec.of_images((1, 8, 8), 10, 2, 32, ())
console = Console(width=max(Console().width, 120))

Genes = Mapping[str, Any]
Values = Mapping[str, float]


@dataclass(frozen=True)
class Problem:
    """`values` of canonical genes; `every` of them all, or of many, for the box; `best` is the
    share of the box that the true front dominates, or 1."""

    name: str
    space: Space
    evaluations: int
    values: Callable[[Genes], Values]
    every: list[Values]
    known: bool

    def span(self) -> Span:
        return Span.of(map(Valued, self.every), METRIC)

    def best(self) -> float:
        return self.span().share(map(Valued, self.every)) if self.known else 1.0


@dataclass(frozen=True)
class Valued:
    values: Values


# --- the problems -------------------------------------------------------------------------------


def part() -> Space:
    """Of the space "metaformer": what the table holds."""
    return SPACES.load("metaformer").restricted(patch=2, norm="rms", depth=2, width=(16, 32))


def key(genes: Genes) -> str:
    return json.dumps(dict(genes), sort_keys=True)


def table() -> dict[str, Values]:
    """Genes -> values; trained where they are not there yet."""
    from formwright.search.budget import Budget
    from formwright.search.evaluate.evaluator import Evaluation, evaluate

    data: dict[str, Any] = {"machine": machine(1), "steps": STEPS, "batch": BATCH, "rows": {}}
    if TABLE.exists():
        data = json.loads(TABLE.read_text(encoding="utf-8"))
    space = part()
    every = {key(genes): genes for genes in map(space.canonical, space.all())}
    missing = {name: genes for name, genes in every.items() if name not in data["rows"]}
    for at, (name, genes) in enumerate(track(missing.items(), "training", console=console)):
        spec = spelled(space.decode(genes, SIGNATURE))
        cost = cost_of(spec)
        asked = Evaluation(
            spec, "digits", Budget(STEPS), BATCH, 1, "eager", RATE_SEED, 3600, metrics=("quality",)
        )
        quality = round(evaluate(asked).values["quality"], 6)
        data["rows"][name] = {"quality": quality, "params": cost.params, "flops": cost.flops}
        if at % 16 == 0 or at == len(missing) - 1:
            TABLE.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return {name: data["rows"][name] for name in every}


def invented(genes: Genes, params: float) -> float:
    """A quality from 0 to 1 for a hybrid: see the head of this file."""
    size = params / (params + 2e4)
    mixing = 1.0 - 1.2 * (genes["channel"] - 0.4) ** 2
    memory = 0.7 + 0.1 * {8: 0, 16: 2, 32: 3}[genes["state"]] * genes["expand"] / 2
    share = genes["attention"]
    recall = share / (share + 0.06)
    if share:
        recall *= {"even": 1.0, "last": 0.85, "first": 0.6}[genes["place"]]
        recall *= {"none": 0.8, "alibi": 0.95, "rotary": 1.0}[genes["positions"]]
        recall *= {2: 0.6, 4: 0.8}.get(genes["span"], 1.0)
        recall *= {1: 0.9, 2: 1.0, 4: 0.97}[genes["heads"]]
    norm = 1.0 if (genes["norm"] == "rms") == (genes["depth"] > 4) else 0.97
    return norm * (0.15 + 0.5 * size * mixing * memory + 0.35 * recall * (0.4 + 0.6 * size))


def digits() -> Problem:
    rows = table()
    return Problem("digits", part(), 60, lambda g: rows[key(g)], list(rows.values()), True)


def hybrid() -> Problem:
    space = SPACES.load("hybrid_mamba").restricted(kv_heads=1)
    parts: dict[Any, tuple[int, int]] = {}
    made: dict[str, Values] = {}

    def cost(spec: ArchSpec) -> tuple[int, int]:
        """Parameters and operations: of no layers, and what each kind of layer adds."""
        (stage,) = spec.stages
        total = alone(spec, ())
        for layer in stage.layers:
            none, one = alone(spec, ()), alone(spec, (layer,))
            total = total[0] + one[0] - none[0], total[1] + one[1] - none[1]
        return total

    def alone(spec: ArchSpec, layers: tuple[Any, ...]) -> tuple[int, int]:
        few = replace(spec, stages=(replace(spec.stages[0], layers=layers),))
        if few not in parts:
            found = cost_of(few)
            parts[few] = found.params, found.flops
        return parts[few]

    def values(genes: Genes) -> Values:
        if (name := key(genes)) not in made:
            params, flops = cost(space.decode(genes, SIGNATURE))
            made[name] = {"quality": invented(genes, params), "params": params, "flops": flops}
        return made[name]

    rng = random.Random(0)
    for genes in (space.sample(rng) for _ in range(5)):  # layers do add up
        whole = cost_of(space.decode(genes, SIGNATURE))
        assert cost(space.decode(genes, SIGNATURE)) == (whole.params, whole.flops)
    every = [values(space.sample(rng)) for _ in range(3000)]
    return Problem("hybrid", space, 100, values, every, False)


PROBLEMS = {"digits": digits, "hybrid": hybrid}


# --- the searches -------------------------------------------------------------------------------


def ours(sampler: str, problem: Problem, seed: int, evaluations: int) -> list[Values]:
    """One after the other; what is known is asked for anew, then one of its neighbours is taken."""
    space = problem.space
    proposer = SAMPLERS.load(sampler).make(space, METRIC, seed)
    known: set[str] = set()
    found = []
    for number in range(evaluations):
        genes = _fresh(proposer, space, number, known, random.Random(f"{seed}|{number}"))
        known.add(key(genes))
        running = Trial(number, genes, NOTHING).started()
        values = problem.values(genes)
        proposer.tell(running)
        proposer.tell(running.succeeded(Measurement(values)))
        found.append(values)
    return found


def _fresh(proposer: Any, space: Space, number: int, known: set[str], rng: random.Random) -> Genes:
    asked = []
    for draw in range(4):
        asked.append(proposer.ask(number, draw))
        if key(asked[-1]) not in known:
            return asked[-1]
    near = [g for genes in asked for g in space.neighbours(genes) if key(g) not in known]
    while not near:
        near = [genes for genes in [space.sample(rng)] if key(genes) not in known]
    return rng.choice(near)


def plain(sampler: str, problem: Problem, seed: int, evaluations: int) -> list[Values]:
    """As Optuna's first page shows it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    space = problem.space
    study = optuna.create_study(
        directions=[metric.direction.value for metric in METRIC],
        sampler=getattr(optuna.samplers, sampler)(seed=seed),
    )
    found: list[Values] = []
    for _ in range(evaluations):
        asked = study.ask()
        genes = {g.name: asked.suggest_categorical(g.name, g.choices) for g in space.genes}
        found.append(problem.values(space.canonical(genes)))
        study.tell(asked, [found[-1][metric.name] for metric in METRIC])
    return found


def uncapped(problem: Problem, seed: int, evaluations: int) -> list[Values]:
    """tpe with all of its history."""
    from formwright.search.propose import tpe

    before = tpe.SLACK
    tpe.SLACK = 10**9
    try:
        return ours("tpe", problem, seed, evaluations)
    finally:
        tpe.SLACK = before


def curve(problem: Problem, found: list[Values]) -> list[float]:
    """The score after each evaluation."""
    span, best = problem.span(), problem.best()
    shares: list[float] = []
    for at, values in enumerate(found):
        better = not any(
            all(_cost(o)[i] <= x for i, x in enumerate(_cost(values))) for o in found[:at]
        )
        shares.append(span.share(map(Valued, found[: at + 1])) / best if better else shares[-1])
    return [round(share, 6) for share in shares]


def _cost(values: Values) -> tuple[float, ...]:
    return (-values["quality"], values["params"], values["flops"])


# --- the record ---------------------------------------------------------------------------------


def run(problem: Problem, name: str, seed: int, evaluations: int) -> dict[str, Any]:
    started = time.perf_counter()
    if name == "tpe, all history":
        found = uncapped(problem, seed, evaluations)
    elif name in PLAIN:
        found = plain(PLAIN[name], problem, seed, evaluations)
    else:
        found = ours(name, problem, seed, evaluations)
    seconds = time.perf_counter() - started
    distinct = len({json.dumps(values) for values in found})
    return {"curve": curve(problem, found), "distinct": distinct, "seconds": round(seconds, 2)}


def p_above(a: list[float], b: list[float]) -> float:
    """The chance of such differences, or larger, if `a` were not above `b`."""
    from scipy.stats import wilcoxon

    return float(wilcoxon(a, b, alternative="greater").pvalue) if a != b else 1.0


def summary(
    cells: dict[str, Any], problem: str, names: list[str], seeds: int
) -> list[dict[str, Any]]:
    """A row for each contestant that has all seeds."""
    curves = {n: [cells[f"{problem}/{n}/{s}"]["curve"] for s in range(seeds)] for n in names}
    ends = {name: [c[-1] for c in of] for name, of in curves.items()}
    rows = []
    for name in names:
        reach = [
            next((at for at, x in enumerate(c, 1) if x >= aim), len(c) + 1)
            for c, aim in zip(curves[name], ends[names[0]], strict=True)
        ]
        row = {"name": name, "median": statistics.median(ends[name]), "ends": ends[name]}
        row |= {"low": min(ends[name]), "high": max(ends[name]), "reach": statistics.median(reach)}
        row["above"] = {o: p_above(ends[name], ends[o]) for o in names if o != name}
        row["below"] = {o: p_above(ends[o], ends[name]) for o in names if o != name}
        row["distinct"] = statistics.median(
            cells[f"{problem}/{name}/{s}"]["distinct"] for s in range(seeds)
        )
        rows.append(row)
    return rows


def show(problem: str, rows: list[dict[str, Any]], evaluations: int) -> None:
    shown = Table(title=f"{problem}: {evaluations} evaluations, {len(rows[0]['ends'])} seeds")
    heads = ["sampler", "hypervolume", "least..most", "to random's end", "distinct"]
    others = [row["name"] for row in rows if row["name"] in ("random", *PLAIN)]
    for head in [*heads, *(f"p above {other}\n(p below)" for other in others)]:
        shown.add_column(head)
    for row in rows:
        ps = [
            f"{row['above'][o]:.4f}\n({row['below'][o]:.2f})" if o in row["above"] else ""
            for o in others
        ]
        spread = f"{row['low']:.3f}..{row['high']:.3f}"
        reach = f"{row['reach']:g}" if row["reach"] <= evaluations else "never"
        shown.add_row(
            row["name"], f"{row['median']:.4f}", spread, reach, f"{row['distinct']:g}", *ps
        )
    console.print(shown)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--again", action="store_true", help="run cells that are there too")
    parser.add_argument("--quick", action="store_true", help="2 seeds of 20 on hybrid, not kept")
    parser.add_argument("--history", action="store_true", help="tpe with and without its cap")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    out = None if given.quick else given.out
    problems, seeds = (["hybrid"], 2) if given.quick else (given.problems, given.seeds)
    data: dict[str, Any] = {"commit": commit(), "machine": machine(1, "optuna"), "cells": {}}
    if out and out.exists() and not given.again:
        data["cells"] = json.loads(out.read_text(encoding="utf-8"))["cells"]
    data["summary"] = {}
    good = True
    for name in problems:
        problem = PROBLEMS[name]()
        tasks = {name: (list(_takers(problem)), 20 if given.quick else problem.evaluations)}
        if given.history and name == "hybrid":
            tasks["hybrid, history"] = (["tpe", "tpe, all history"], 500)
        for title, (names, evaluations) in tasks.items():
            cells = [(n, s) for n in names for s in range(seeds)]
            for contestant, seed in track(cells, title, console=console):
                cell = f"{title}/{contestant}/{seed}"
                if cell not in data["cells"]:
                    data["cells"][cell] = run(problem, contestant, seed, evaluations)
                    if out:
                        out.write_text(json.dumps(data) + "\n", encoding="utf-8")
            rows = summary(data["cells"], title, names, seeds)
            data["summary"][title] = {"evaluations": evaluations, "rows": rows}
            show(title, rows, evaluations)
            if not given.quick:
                good = all(map(_holds, rows)) and good
    if out:
        out.write_text(json.dumps(data) + "\n", encoding="utf-8")
    return 0 if good else 1


def _takers(problem: Problem) -> list[str]:
    """Those who can search it; random first."""
    takes = [name for name in OURS if name != "exact" or problem.name == "digits"]
    return [*takes, *PLAIN]


def _holds(row: dict[str, Any]) -> bool:
    """What we claim of tpe and nsga2: above random, not below the Optuna sampler of that name."""
    other = f"optuna {row['name']}"
    if other not in row["above"]:
        return True
    return row["above"]["random"] < 0.05 and row["below"][other] >= 0.05


if __name__ == "__main__":
    sys.exit(main())
