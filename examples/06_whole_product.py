"""The whole product: a search served, watched and queried; its best architecture compiled."""

import argparse
import tempfile

import torch
from rich.console import Console

from formwright.compiler import collect
from formwright.search import SearchSpec, build
from formwright.service import Client, local_server
from formwright.service.show import follow, front_table, plot

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="few trials, and no generated code")
quick = parser.parse_args().quick
size = {"trials": 3, "steps": 5, "target": "eager"} if quick else {"trials": 14, "steps": 300}
spec, console = SearchSpec(space="metaformer", task="digits", **size), Console()

with (
    tempfile.TemporaryDirectory() as folder,
    local_server(f"{folder}/searches.db", workers=2) as address,
    Client(address) as client,
):
    console.print(f"serving on {address}; SQLite, 2 local Ray workers; {spec.trials} candidates")
    search = client.submit(spec, display_name="demo")
    state = follow(client, search, console)
    front = client.best(search.id)
    console.print(front_table(front, "Pareto front", spec.objectives))
    print(plot(list(client.trials(search.id)), front, "latency_ms", "quality"))

best = front[0]
console.print(f"best by quality, rebuilt from the store: {best.architecture.short()}")
model, images = build(best.architecture).eval(), torch.randn(16, *best.architecture.signature.image)
with torch.no_grad(), collect() as report:
    compiled = torch.compile(model, backend="formwright", options={"target": spec.target})
    difference = (compiled(images) - model(images)).abs().max()
print(report)
console.print(f"largest difference between compiled and eager: {difference:.1e}")
raise SystemExit(0 if state == "SUCCEEDED" and difference < 1e-4 else 1)
