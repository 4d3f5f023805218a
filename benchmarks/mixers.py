"""MetaFormer's order of mixers, on handwritten digits: who learns how much, over several seeds.

    python benchmarks/mixers.py [--cells 'conv/*'] [--rounds 3] [--again] [--quick]
                                [--out docs/measurements/mixers.json]

"MetaFormer Baselines for Vision" (Yu et al., 2024) finds identity < random < pooling < convolution
<= convolution then attention on ImageNet. Here each is trained alike, with everything but the mixer
the same; one round is one seed. Accuracies are of the validation split.
"""

from __future__ import annotations

import fnmatch
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from measure import MEASUREMENTS, child, commit, machine, options, resumed
from rich.console import Console
from rich.table import Table

OUT = MEASUREMENTS / "mixers.json"
console = Console()

WIDTH, STEPS, BATCH, QUICK_STEPS = 32, 600, 64, 20
ORDER = ("identity", "random", "pool", "conv", "conv, attention")


@dataclass(frozen=True)
class Case:
    """A cell: which mixers, from the first layers to the last, and from which seed."""

    mixers: str
    seed: int
    steps: int

    @property
    def key(self) -> str:
        """mixers/steps/seed"""
        return f"{self.mixers}/{self.steps}/{self.seed}"


def trained(mixers: str, seed: int, steps: int) -> dict[str, Any]:
    """Accuracy of one model. Runs in a process of its own."""
    import torch

    from formwright.search import TASKS, ArchSpec, BlockSpec, LayerSpec
    from formwright.search.budget import Budget
    from formwright.search.evaluate.evaluator import Evaluation, evaluate
    from formwright.search.space.metaformer_staged import STAGED_MIXERS

    blocks = [STAGED_MIXERS[of](WIDTH) for of in mixers.split(", ")]
    mlp = BlockSpec.of("mlp", hidden=4 * WIDTH, activation="gelu")
    layers = [LayerSpec(blocks[at * len(blocks) // 4], mlp, BlockSpec("layer")) for at in range(4)]
    signature = TASKS.load("digits").signature
    spec = ArchSpec.of_images(signature.image, signature.classes, 1, WIDTH, tuple(layers))
    threads = torch.get_num_threads()
    found = evaluate(
        Evaluation(
            spec, "digits", Budget(steps), BATCH, threads, "eager", seed, 3600, metrics=("quality",)
        )
    ).values
    return {"accuracy": found["quality"], "params": found["params"]}


def show(cells: dict[str, Any], steps: int) -> None:
    """The table in the published order."""
    table = Table(title=f"accuracy on digits after {steps} steps, patches of one pixel")
    for head in ("mixers of 4 layers", "parameters", "median", "of each seed"):
        table.add_column(head)
    for name in ORDER:
        rows = [row for row in cells.values() if row["mixers"] == name]
        if rows:
            found = [row["accuracy"] for row in rows]
            each = "  ".join(f"{value:.3f}" for value in found)
            middle = f"{statistics.median(found):.3f}"
            table.add_row(name, f"{rows[0]['params']:,}", middle, each)
    console.print(table)


def main() -> int:
    """Measure what is missing, keep it, show all."""
    given = options(__doc__, OUT, "globs of mixers/steps/seed", rounds=3)
    if given.one:
        import torch

        task = json.loads(given.one)
        torch.set_num_threads(task.pop("threads"))
        print(json.dumps(trained(**task)))
        return 0
    steps = QUICK_STEPS if given.quick else STEPS
    cases = [Case(name, seed, steps) for name in ORDER for seed in range(given.rounds)]
    asked = [c for c in cases if any(fnmatch.fnmatch(c.key, glob) for glob in given.cells)]

    def measured(case: Case) -> dict[str, Any]:
        task = {**asdict(case), "threads": given.threads}
        with console.status(case.key):
            row = child("mixers.py", task, given.threads)
        done = {"commit": commit(), "at": time.strftime("%Y-%m-%d %H:%M"), "failed": {}}
        return {**asdict(case), **row, **done}

    head = {"machine": machine(given.threads)}
    say = console.print
    cells, lost = resumed(asked, given.out, head, given.again, measured, say)
    show(cells, steps)
    return int(lost)


if __name__ == "__main__":
    sys.exit(main())
