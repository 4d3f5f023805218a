"""Search image classifiers without a service: in this process, or on Ray; beside a random search.

python examples/04_search_locally.py [--quick] [--workers 2] [--report search_digits.html]
"""

import argparse
from dataclasses import replace

from formwright.search import MemoryLog, SearchSpec, as_text, picture, run_search, save_report

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="few trials, and no generated code")
parser.add_argument("--workers", type=int, default=2, help="of Ray; 0: this process")
parser.add_argument("--picture", default="search_digits.png", help="where it goes: .png or .svg")
parser.add_argument("--report", default="search_digits.html", help="a page of all of it")
given = parser.parse_args()

spec = SearchSpec(
    space="metaformer",
    task="digits",
    objectives=("quality", "latency_ms", "params"),
    constraints=("params<=80000",),
    trials=14,
    steps=300,
    rungs=2,  # after a third of the training only the best third goes on, and who is not dominated
)
if given.quick:
    given.workers = 0
    spec = replace(spec, trials=3, steps=9, target="eager")
found = run_search(spec, workers=given.workers)
print(as_text(found))

# the same budget at random; what both propose is trained once
log = MemoryLog(earlier=[found])
chance = run_search(replace(spec, sampler="random"), workers=given.workers, log=log)
beside = {"random": chance}
print(f"see {picture(found, given.picture, beside)}, {save_report(found, given.report, beside)}")
