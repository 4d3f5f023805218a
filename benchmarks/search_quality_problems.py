"""What `search_quality.py` searches: spaces whose values are looked up, one of them trained.

It knows no contestant.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from measure import MEASUREMENTS, machine
from rich.console import Console
from rich.progress import track

from formwright.search import METRICS, SPACES, TASKS, ArchSpec, cost_of
from formwright.search import canonical as spelled
from formwright.search.space import Space
from formwright.search.span import Span

TABLE = MEASUREMENTS / "search_table.json"
STEPS, BATCH, RATE_SEED = 150, 64, 0
METRIC = [METRICS[name] for name in ("quality", "params", "flops")]
SIGNATURE = TASKS.load("digits").signature
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
