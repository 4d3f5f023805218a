"""Measured layers on disk: read again, never half, and measured by one worker."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from formwright.search import ArchSpec, BlockSpec, EvaluationError, LayerSpec
from formwright.search.evaluate import layer_store
from formwright.search.evaluate.cache import VARIABLE, cache_folder
from formwright.search.evaluate.failure import Deadline
from formwright.search.evaluate.layer_latency import SMALL, predict
from formwright.search.evaluate.layer_store import Entry, Store
from formwright.search.evaluate.machine import machine
from formwright.search.evaluate.pieces import skeleton
from formwright.search.evaluate.timing import REFERENCE

POOL, CONV = BlockSpec.of("pool", size=3), BlockSpec.of("conv", size=3)


@pytest.fixture(autouse=True)
def _own(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))


def layer(mixer=POOL):
    return LayerSpec(mixer, BlockSpec.of("mlp", hidden=32, activation="gelu"), "rms")


def images(*layers):
    return ArchSpec.of_images((1, 8, 8), 10, 2, 16, layers)


def invented(asked=None):
    """Measures without a clock. Notes what it is asked for."""

    def measured(spec, batch, threads, target, deadline):
        if asked is not None:
            asked.append(spec)
        return Entry(spec.to_json(), 1.0, 3.0 + len(spec.layers), 0.5)

    return measured


def run(spec, measured, *, deadline=None):
    deadline = deadline or Deadline.after(600)
    return predict(spec, batch=4, threads=1, target="eager", deadline=deadline, measured=measured)


def store():
    return Store.of(machine(1, "eager").fingerprint, 4, REFERENCE)


def test_a_second_prediction_measures_nothing(monkeypatch):
    asked = []
    first = run(images(layer()), invented(asked))
    monkeypatch.setattr(layer_store, "_read", {})  # as in another process
    second = run(images(layer()), invented(asked))

    assert (first.new, second.new, len(asked)) == (6, 0, 6)
    assert replace(first, new=0) == second


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"architecture": "x"}', "\x00", '{"median_ms": NaN}'],
    ids=repr,
)
def test_a_damaged_file_is_measured_again_and_replaced(monkeypatch, text):
    asked, spec = [], images(layer())
    run(spec, invented(asked))
    (damaged,) = cache_folder("latency").rglob(
        f"{SMALL}/{skeleton(spec).fingerprint().replace(':', '-')}.json"
    )
    damaged.write_text(text)
    monkeypatch.setattr(layer_store, "_read", {})

    assert run(spec, invented(asked)).new == 1
    assert asked[-1] == skeleton(spec)
    assert json.loads(damaged.read_text())["ratio"] == 3.0


@pytest.mark.parametrize("wrong", [0, -1.0, float("inf"), float("nan"), True, "1", None])
def test_numbers_that_no_clock_shows_are_not_believed(monkeypatch, wrong):
    entry = Entry("{}", 1.0, 1.0, 1.0)
    store().put(SMALL, "a1:00", entry)
    (path,) = cache_folder("latency").rglob("a1-00.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "ratio": wrong}))
    monkeypatch.setattr(layer_store, "_read", {})
    assert store().get(SMALL, "a1:00") is None


def test_nothing_half_written_is_left(tmp_path):
    run(images(layer()), invented())
    assert {p.suffix for p in cache_folder("latency").rglob("*") if p.is_file()} == {
        ".json",
        ".lock",
    }


def test_a_folder_that_cannot_be_written_is_told(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    with pytest.raises(EvaluationError, match=f"another folder in {VARIABLE}"):
        run(images(layer()), invented())


def test_the_folder_is_the_users_unless_named(monkeypatch, tmp_path):
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("x") == tmp_path / "xdg" / "formwright" / "x"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("x") == tmp_path / ".cache" / "formwright" / "x"


def test_the_newest_entries_come_last():
    entries = [Entry(f"{at}", 1.0, 1.0, 1.0) for at in range(4)]
    for at in (2, 0, 3, 1):
        store().put(SMALL, f"a1:{at}", entries[at])
        (path,) = cache_folder("latency").rglob(f"a1-{at}.json")
        os.utime(path, (at, at))
    assert store().newest(SMALL, 3) == entries[1:]
    assert store().newest("nothing", 3) == []


WORKERS = """
import os, sys, time
from formwright.search import ArchSpec
from formwright.search.evaluate.failure import Deadline
from formwright.search.evaluate.layer_latency import predict
from formwright.search.evaluate.layer_store import Entry

def measured(spec, batch, threads, target, deadline):
    with open(sys.argv[1], "a") as asked:
        asked.write(spec.fingerprint() + "\\n")
    time.sleep(0.2)  # for the other one to come in
    return Entry(spec.to_json(), 1.0, 1.0 + len(spec.layers), 1.0)

other = os.fork()  # both go on from here
spec = ArchSpec.from_json(sys.argv[2])
found = predict(spec, batch=4, threads=1, target="eager", deadline=Deadline.after(600),
                measured=measured)
print(found.median_ms, flush=True)
if other:
    sys.exit(os.waitpid(other, 0)[1])
"""


def test_two_processes_measure_a_layer_once(tmp_path):
    spec, asked = images(layer(POOL), layer(CONV)), tmp_path / "asked"
    command = [sys.executable, "-c", WORKERS, str(asked), spec.to_json()]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=600, check=True)

    said = done.stdout.split()
    lines = asked.read_text().split()
    assert len(lines) == len(set(lines)) == 7
    assert len(said) == 2
    assert said[0] == said[1]


def test_whoever_waits_for_another_worker_waits_no_longer_than_it_has():
    spec = images(layer())
    fingerprint = skeleton(spec).fingerprint()
    with (
        store().locked(SMALL, fingerprint, Deadline.after(600)),
        pytest.raises(EvaluationError, match="waiting for a layer that another worker measures"),
    ):
        run(spec, invented(), deadline=Deadline.after(0.1))


def test_a_layer_that_cannot_be_measured_is_the_next_ones_to_try():
    def fails(*_):
        raise EvaluationError("no")

    with pytest.raises(EvaluationError, match="no"):
        run(images(layer()), fails)
    assert run(images(layer()), invented()).new == 6
