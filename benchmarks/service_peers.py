"""Who else keeps trials durably: OSS Vizier, Optuna's gRPC proxy, and ours, over SQLite files.

    python benchmarks/service_peers.py CONTESTANT JSON

A process that answers each line `cycle COUNT` with the milliseconds of so many trials, one after
the other, and each line `front COUNT` with those of so many questions for the front. A trial is
proposed, started and finished with ten metrics; that it runs is on disk before it does, and that it
has ended before the next.

- ours: the sampler that is named, and the store's log as the scheduler appends to it: that a trial
  is proposed and started in one transaction, that it has ended in another; or each step `apart`.
  The answer of QueryBestArchitectures, kept encoded, or read again because somebody wrote in
  between.
- vizier: `DefaultVizierServer` in a process of its own; RANDOM_SEARCH, its cheapest algorithm; the
  answer of ListOptimalTrials. A measurement has all ten metrics.
- optuna: `run_grpc_proxy_server` over `get_storage` in a process of its own; TPE, as ours. Two
  values are told, and the others are one user attribute, which is the cheapest way there.

The genes are those of the same space. It runs in the peers' own virtual environments, so it imports
nothing but what a contestant needs. Next: `service_servers.py`.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
OBJECTIVES = {"quality": "MAXIMIZE", "params": "MINIMIZE"}
Turn = Callable[[], None]


def measured(rng: random.Random, names: list[str]) -> dict[str, float]:
    return {name: rng.random() for name in names}


def timed(turn: Turn, between: Turn | None, count: int) -> list[float]:
    """Milliseconds of so many turns; what is done in between does not count."""
    found = []
    for _ in range(count):
        if between:
            between()
        before = time.perf_counter()
        turn()
        found.append((time.perf_counter() - before) * 1e3)
    return found


@contextmanager
def _beside(kind: str, **task: Any) -> Iterator[str]:
    """A server of this kind in a process of its own."""
    command = [sys.executable, str(HERE), kind, json.dumps(task)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(30)


# --- ours ---------------------------------------------------------------------------------------


@contextmanager
def ours(folder: str, task: dict[str, Any]) -> Iterator[dict[str, tuple[Turn, Turn | None]]]:
    from grpc import insecure_channel

    from formwright.search import Measurement, SearchSpec
    from formwright.search.run.state import State
    from formwright.service.store import open_store
    from formwright.service.wire import search_pb2 as pb
    from formwright.service.wire import search_pb2_grpc as pb_grpc

    sys.path.insert(0, str(HERE.parent))
    from service_servers import beside

    rng, path = random.Random(0), f"{folder}/ours.db"
    store = open_store(path)
    objectives, sampler = tuple(OBJECTIVES), task.get("sampler", "tpe")
    spec = SearchSpec(trials=100_000, objectives=objectives, target="eager", sampler=sampler)
    store.create_search(spec, "")
    claim = store.claim("the benchmark", 3600)
    assert claim is not None
    log, state = store.log(claim), State(spec)

    def cycle() -> None:
        proposed = state.propose()
        assert proposed is not None
        started = proposed.started()
        ended = started.succeeded(Measurement(measured(rng, task["metrics"]), {"seed": 1}))
        if task.get("apart"):
            for trial in (proposed, started, ended):
                state.tell(trial)
                log.append(trial)
            return
        state.tell(proposed)
        state.tell(started)
        log.append(proposed, started)  # before a worker begins
        state.tell(ended)
        log.append(ended)

    turns: dict[str, tuple[Turn, Turn | None]] = {"cycle": (cycle, None)}
    if not task.get("front"):
        yield turns
        return
    writes, id, count = open_store(task["front"]), task["search"], iter(range(10**9))

    def write() -> None:
        writes.update_search(task["other"], {"display_name": f"change {next(count)}"})

    request = pb.QueryBestArchitecturesRequest(search=f"searches/{id}", limit=1000)
    with beside("ours", database=task["front"]) as address, insecure_channel(address) as channel:
        call = pb_grpc.SearchServiceStub(channel).QueryBestArchitectures
        turns["front"] = (lambda: _whole(call(request).trials, task), None)
        turns["again"] = (turns["front"][0], write)
        yield turns


def _whole(found: Any, task: dict[str, Any]) -> None:
    if len(found) != task["on_it"]:
        raise RuntimeError(f"a front of {len(found)}, not of {task['on_it']}")


# --- OSS Vizier -----------------------------------------------------------------------------------


@contextmanager
def vizier(folder: str, task: dict[str, Any]) -> Iterator[dict[str, tuple[Turn, Turn | None]]]:
    from vizier._src.service import vizier_service_pb2
    from vizier.service import clients
    from vizier.service import pyvizier as vz

    rng = random.Random(0)
    config = vz.StudyConfig(algorithm="RANDOM_SEARCH")
    for name, goal in OBJECTIVES.items():
        config.metric_information.append(
            vz.MetricInformation(name=name, goal=getattr(vz.ObjectiveMetricGoal, goal))
        )
    for name, choices in task["genes"].items():
        config.search_space.root.add_categorical_param(name, [str(c) for c in choices])
    with _beside("vizier-server", path=f"{folder}/vizier.db") as endpoint:
        clients.environment_variables.server_endpoint = endpoint
        study = clients.Study.from_study_config(config, owner="bench", study_id="bench")

        def cycle(values: dict[str, float] | None = None) -> None:
            (trial,) = study.suggest(count=1, client_id="one")
            trial.complete(vz.Measurement(values or measured(rng, task["metrics"])))

        for values in task.get("values", ()):
            cycle(values)
        call = study._client._service.ListOptimalTrials
        asked = vizier_service_pb2.ListOptimalTrialsRequest(parent=study.resource_name)
        turn = (lambda: _whole(call(asked).optimal_trials, task), None)
        yield {"cycle": (cycle, None), "front": turn}


def vizier_server(path: str) -> None:
    from vizier.service import servers

    server = servers.DefaultVizierServer(database_url=f"sqlite:///{path}")
    print(server.endpoint, flush=True)
    sys.stdin.read()


# --- Optuna ---------------------------------------------------------------------------------------


@contextmanager
def optuna(folder: str, task: dict[str, Any]) -> Iterator[dict[str, tuple[Turn, Turn | None]]]:
    import optuna as library
    from optuna.storages import GrpcStorageProxy

    library.logging.set_verbosity(library.logging.WARNING)
    rng, rest = random.Random(0), [name for name in task["metrics"] if name not in OBJECTIVES]
    with _beside("optuna-server", path=f"{folder}/optuna.db") as port:
        proxy = GrpcStorageProxy(host="localhost", port=int(port))
        proxy.wait_server_ready(timeout=60)
        study = library.create_study(
            storage=proxy,
            sampler=library.samplers.TPESampler(seed=0),
            directions=[goal.lower() for goal in OBJECTIVES.values()],
        )

        def cycle() -> None:
            trial = study.ask()
            for name, choices in task["genes"].items():
                trial.suggest_categorical(name, choices)
            values = measured(rng, task["metrics"])
            trial.set_user_attr("metrics", {name: values[name] for name in rest})
            study.tell(trial, [values[name] for name in OBJECTIVES])

        yield {"cycle": (cycle, None)}


def optuna_server(path: str) -> None:
    import os
    import socket
    import threading

    from optuna.storages import get_storage, run_grpc_proxy_server

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    storage = get_storage(f"sqlite:///{path}")  # with its cache in front
    serving = threading.Thread(
        target=run_grpc_proxy_server, args=(storage,), kwargs={"host": "localhost", "port": port}
    )
    serving.daemon = True
    serving.start()
    print(port, flush=True)
    sys.stdin.read()
    os._exit(0)  # it has no way to be stopped


CONTESTANTS = {"ours": ours, "vizier": vizier, "optuna": optuna}
PACKAGES = {
    "ours": ("grpcio", "sqlalchemy", "optuna"),
    "vizier": ("google-vizier", "grpcio", "sqlalchemy", "jax"),
    "optuna": ("optuna", "grpcio", "sqlalchemy"),
}
SERVERS = {"vizier-server": vizier_server, "optuna-server": optuna_server}


def main() -> int:
    kind, task = sys.argv[1], json.loads(sys.argv[2])
    if kind in SERVERS:
        SERVERS[kind](**task)
        return 0
    with CONTESTANTS[kind](task["folder"], task) as turns:
        print(json.dumps({name: version(name) for name in PACKAGES[kind]}), flush=True)
        for line in sys.stdin:
            what, count = line.split()
            print(json.dumps(timed(*turns[what], int(count))), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
