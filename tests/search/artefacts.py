"""Small artefacts: a layer of 16 numbers, a handful of steps, nothing generated."""

import json

import pytest

from formwright.search import ArchSpec, SearchSpec, keep
from formwright.search.evaluate import latency
from formwright.search.evaluate.cache import VARIABLE as CACHE
from formwright.search.evaluate.quiet import VARIABLE as QUIET

FILES = {"spec.json", "model.safetensors", "report.json", "metrics.json", "README.md"}
BARE = ArchSpec.of_images((1, 8, 8), 10, 2, 8, ())
"""Without layers: compiled in no time."""
TINY = SearchSpec(task="digits", steps=4, batch=16, target="eager", seed=7)


def quickly(monkeypatch, folder):
    """Short measurements, and no other process' folders."""
    monkeypatch.setattr(latency, "AIM_S", 0.01)
    monkeypatch.setenv(QUIET, str(folder / "quiet"))
    monkeypatch.setenv(CACHE, str(folder / "cache"))


@pytest.fixture
def quick(monkeypatch, tmp_path):
    quickly(monkeypatch, tmp_path)


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def names(folder):
    """What is in it, hidden or not."""
    return {path.name for path in folder.iterdir()}


def kept(folder, architecture, spec=TINY, seeds=1, **more):
    return keep(architecture, spec, folder, seeds=seeds, **more)
