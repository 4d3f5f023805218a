"""Search hybrids of Mamba-2 and attention that recall what they have read, and decode fast.

The task is MAD's in-context recall in small: pairs of keys and values, and a key whose value is
asked. State-space layers alone find it hard, attention finds it easy, and costs state.

python examples/10_hybrid_on_recall.py [--quick] [--picture search_recall.png]
"""

import argparse
from dataclasses import replace

from formwright.search import SearchSpec, as_text, pattern, picture, run_search

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="few trials, and no generated code")
parser.add_argument("--workers", type=int, default=2, help="of Ray; 0: this process")
parser.add_argument("--picture", default="search_recall.png", help="where it goes: .png or .svg")
given = parser.parse_args()

spec = SearchSpec(
    space="hybrid_mamba",
    # where attention stands and how much of it there is; what layers are made of is fixed, so
    # that a handful of them is compiled for all candidates
    knobs=(
        *("width=32", "norm=rms", "depth=4", "ratio=2"),
        *("expand=2", "head_width=16", "state=16"),
        *("heads=2", "kv_heads=1", "positions=rotary", "span=1048576"),
    ),
    task="recall_small",
    objectives=("quality", "latency_ms", "state_bytes"),
    sampler="nsga2",
    trials=14,
    steps=360,
    batch=32,
    rates=(3e-3, 1e-2),  # one rate would rank recurrent and attending layers unfairly
    rungs=2,
    latency="layers",
)
if given.quick:
    given.workers = 0
    spec = replace(spec, trials=2, steps=4, target="eager", rates=(6e-3,), latency="whole")
found = run_search(spec, workers=given.workers)
print(as_text(found))
for trial in found.front():
    print(f"{pattern(trial.architecture):10} {trial.values['quality']:.3f}")
print(f"see {picture(found, given.picture)}")
