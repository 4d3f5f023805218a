"""An architecture search without a service: in this process, then on Ray workers."""

import argparse

from formwright.search import SearchSpec, run_search

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="few trials, and no generated code")
quick = parser.parse_args().quick

size = {"trials": 2, "steps": 5, "target": "eager"} if quick else {"trials": 6}
spec = SearchSpec(space="metaformer", task="digits", **size)
for workers in (0, 2):  # 0: this process; else so many Ray workers
    result = run_search(spec, workers=workers)
    print(f"{len(result.succeeded)} of {len(result.trials)} trials, the front:")
    for trial in result.front():
        numbers = ", ".join(f"{name} {trial.values[name]:.4g}" for name in spec.objectives)
        print(f"  {numbers}: {trial.architecture.short()}")
