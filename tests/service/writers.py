"""Who uses a database while a test looks at it: searches are made, run, kept from and deleted. Also
a process of its own: `python writers.py URL`, until its standard input closes."""

import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from formwright.search import Fenced, Measurement, SearchSpec
from formwright.search.testing import a_trial
from formwright.service.errors import ServiceError
from formwright.service.records import SearchState
from formwright.service.store import open_store

SPEC = SearchSpec(objectives=("quality", "params"))  # of no machine: one front a search
TRIALS = 4
PAUSE_S = 0.05  # between two searches, for others on this machine


def run_one(store, owner, folder, turn):
    """A search from its beginning to its end, with an artefact; every second one is deleted."""
    store.create_search(SPEC, "", f"{owner} {turn}")
    claim = store.claim(owner, 600)
    if claim is None:
        return
    log = store.log(claim)
    for number in range(TRIALS):
        trial, started = a_trial(number), a_trial(number).started()
        log.append(trial, started)
        values = {"quality": float((number * 7 + turn) % 5), "params": float(number)}
        log.append(started.succeeded(Measurement(values, {"note": f"größer → {turn}"})))
    store.finish(claim, SearchState.SUCCEEDED)
    id = claim.search.id
    with suppress(Fenced, ServiceError):  # what others have claimed, they make
        store.artifacts.create(id, 0, 1)
        keeps = store.artifacts.claim(owner, 600)
        if keeps is not None:
            (folder / "model.safetensors").write_bytes(bytes([turn % 3]) * 300_000)
            (folder / "spec.json").write_text(keeps.search_id)
            store.artifacts.finish(keeps, folder)
    if turn % 2:
        store.delete_search(id)


def write(url, owner, enough, told=lambda: None):
    """Until it is `enough`."""
    store = open_store(url)
    with tempfile.TemporaryDirectory() as folder:
        turn = 0
        while not enough():
            run_one(store, owner, Path(folder), turn)
            turn += 1
            told()
    store.close()


def filled(url, folder, turns=3):
    """Searches that have ended, two of them with an artefact."""
    store = open_store(str(url))
    for turn in range(turns):
        run_one(store, "me", folder, turn)
    store.close()
    return str(url)


if __name__ == "__main__":
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    print("ready", flush=True)
    write(sys.argv[1], "process", lambda: over.wait(PAUSE_S))
