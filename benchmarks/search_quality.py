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
from pathlib import Path
from typing import Any

from measure import MEASUREMENTS, commit, machine
from rich.progress import track
from rich.table import Table
from search_quality_problems import METRIC, PROBLEMS, Genes, Problem, Valued, Values, console, key

from formwright.search import ArchSpec, Measurement, Trial
from formwright.search.propose import SAMPLERS
from formwright.search.space import Space

OUT = MEASUREMENTS / "search_quality.json"
OURS = ("random", "tpe", "nsga2", "exact")
PLAIN = {"optuna tpe": "TPESampler", "optuna nsga2": "NSGAIISampler"}
NOTHING = ArchSpec.of_images((1, 8, 8), 10, 2, 32, ())


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


def save(data: dict[str, Any], out: Path | None) -> None:
    """A line for each cell: curves are long."""
    if out is None:
        return
    cells = [f"  {json.dumps(k)}: {json.dumps(cell)}" for k, cell in data["cells"].items()]
    head = json.dumps({**data, "cells": "here"}, indent=1)
    text = head.replace('"here"', "{\n" + ",\n".join(cells) + "\n }")
    out.write_text(text + "\n", encoding="utf-8")


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
    data: dict[str, Any] = {"commit": commit(), "machine": machine(1, "optuna")}
    data |= {"summary": {}, "cells": {}}
    if out and out.exists():
        earlier = json.loads(out.read_text(encoding="utf-8"))
        if earlier["machine"]["optuna"] == data["machine"]["optuna"]:  # of no matter otherwise
            data |= {"summary": earlier["summary"], "cells": earlier["cells"]}
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
                if given.again or cell not in data["cells"]:
                    data["cells"][cell] = run(problem, contestant, seed, evaluations)
                    save(data, out)
            rows = summary(data["cells"], title, names, seeds)
            data["summary"][title] = {"evaluations": evaluations, "rows": rows}
            show(title, rows, evaluations)
            if not given.quick:
                good = all(map(_holds, rows)) and good
            save(data, out)
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
