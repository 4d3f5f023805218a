"""The same search over gRPC: submit, watch, ask for the best, fetch it with its weights."""

import argparse
import tempfile

import torch

from formwright.search import SearchSpec, load
from formwright.service import Client, local_server

parser = argparse.ArgumentParser()
parser.add_argument("--quick", action="store_true", help="few trials, and no generated code")
quick = parser.parse_args().quick
size = {"trials": 2, "steps": 5, "target": "eager"} if quick else {"trials": 6}

with (
    tempfile.TemporaryDirectory() as folder,
    local_server(f"{folder}/searches.db", workers=2) as address,  # or `formwright serve`
    Client(address) as client,
):
    search = client.submit(SearchSpec(space="metaformer", task="digits", **size))
    for event in client.watch(search.id):
        if event.trial and event.trial.state == "SUCCEEDED":
            print(f"trial {event.trial.number}: quality {event.trial.values['quality']:.3f}")
    best = client.best(search.id, bounds={"params": (None, 200_000)})[0]
    print(f"best under 200,000 parameters: {best.architecture.short()}, {dict(best.values)}")
    kept = client.fetch(
        search.id,
        best.number,
        f"{folder}/kept",
        seeds=1 if quick else 3,
        told=lambda artifact: print(artifact.state, artifact.step),
    )
    architecture, model = load(kept)
    print(model(torch.randn(1, *architecture.signature.image)).shape)
