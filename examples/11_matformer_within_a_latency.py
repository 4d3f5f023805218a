"""Mix'n'Match: the sub-models of one trained MatFormer, and the best within a latency budget.

One network learns to write Python; every candidate is a slice of it, judged on its weights.
Latencies are added up from layers that are compiled once, and measured for whoever might be on the
front.

python examples/11_matformer_within_a_latency.py [--quick] [--picture search_matformer.png]
"""

import argparse
from dataclasses import replace

from formwright.search import TASKS, MemoryLog, SearchSpec, as_text, picture, run_search
from formwright.search.space.matformer import whole

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="few trials, and no generated code")
parser.add_argument("--workers", type=int, default=2, help="of Ray; 0: this process")
parser.add_argument("--picture", default="search_matformer.png", help="where: .png or .svg")
parser.add_argument("--share", type=float, default=0.9, help="of the whole network's latency")
given = parser.parse_args()

task = "digits" if given.quick else "python_chars"  # where a candidate is judged in a moment
largest = whole(TASKS.load(task).signature, patch=1)
spec = SearchSpec(
    space="matformer",
    task=task,
    objectives=("quality", "latency_ms"),
    sampler="exact",  # what layers add is fitted, and the exact front of the sums is proposed
    trials=24,
    steps=600,
    batch=32,
    weights="shared",
    latency="layers",
)
if given.quick:
    given.workers = 0
    spec = replace(spec, trials=4, steps=8, target="eager", latency="whole")
    given.share = 1000.0  # so short a look at so small a model decides nothing

# how fast is the whole? its own search of one trial says so, measured and not predicted
alone = replace(spec, trials=1, latency="whole", baselines=(largest.to_json(),))
first = run_search(alone, progress=False)
budget_ms = given.share * first.trials[0].values["latency_ms"]
print(f"the whole: {first.trials[0].values}, so the budget is {budget_ms:.3f} ms")

within = replace(spec, constraints=(f"latency_ms<={budget_ms:.6g}",))
found = run_search(within, workers=given.workers, log=MemoryLog(earlier=[first]))
print(as_text(found))
chance = run_search(
    replace(within, sampler="random"), workers=given.workers, log=MemoryLog(earlier=[found])
)
print(f"see {picture(found, given.picture, beside={'random': chance})}")
