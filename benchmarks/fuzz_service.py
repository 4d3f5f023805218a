"""100,000 calls that nobody would make, to a real server in a process of its own.

    python benchmarks/fuzz_service.py [--calls 100000]

Odd messages, messages with some bits turned, hard texts in each field, and between them connections
that speak no HTTP/2. Counted by RPC and status. Exit code 1 if the server crashed or answered
INTERNAL, UNKNOWN or anything else that it should not, or if a request that it refused has changed
the database, which is asked after every call.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import measure
import psutil
from rich.console import Console
from rich.table import Table

from formwright.search.testing import a_measurement, a_trial
from formwright.service.host import Host
from formwright.service.rpc.methods import METHODS, SERVICE, STREAMS
from formwright.service.store import open_store
from formwright.service.testing_fuzz import (
    HARD,
    REFUSALS,
    garbage,
    hard,
    mutated,
    odd,
    sensible,
    stocked,
    texts,
)
from formwright.service.wire import search_pb2 as pb

OUT = measure.MEASUREMENTS / "fuzz_service.json"
WATCH = "WatchSearch"
REQUESTS = {method.name: method.request for method in (*METHODS, *STREAMS)}
REQUESTS[WATCH] = pb.WatchSearchRequest
STREAMED = {WATCH, *(stream.name for stream in STREAMS)}
WARM = 0.1  # of the calls, after which memory is looked at
EACH_GARBAGE = 50  # calls
EACH_STOCK = 100  # calls, after which most of what was there is deleted
LIMIT_S = 30.0  # of a call
GLANCE_S = 0.05  # of a watch, in which nothing new comes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--quick", action="store_true", help="2000 calls, nothing kept")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(serve(given.serve))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        database = str(Path(folder, "searches.db"))
        found = fuzz(database, 2000 if given.quick else given.calls, given.seed)
    Console().print(as_table(found))
    print({key: value for key, value in found.items() if key != "by_rpc"})
    if not given.quick:
        head = {"commit": measure.commit(), "machine": measure.machine(1, "grpcio", "protobuf")}
        given.out.write_text(json.dumps({**head, **found}, indent=1) + "\n", encoding="utf-8")
    return int(bool(found["wrong"]))


async def serve(database: str) -> None:
    """The server's process, until it is killed: no scheduler runs what is submitted."""
    store = open_store(database)
    host = Host(store)
    port = host.server.add_insecure_port("127.0.0.1:0")
    await host.start()
    print(port, flush=True)
    await host.run()


def fuzz(database: str, calls: int, seed: int) -> dict[str, Any]:
    """What was counted, and all that was wrong."""
    stock(database)
    command = [sys.executable, __file__, "--serve", database]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        port = int(server.stdout.readline()) if server.stdout else 0
        return _fuzz(server, port, database, calls, random.Random(seed))
    finally:
        server.kill()
        server.wait()


def stock(database: str) -> list[str]:
    """Names of what is new in it."""
    with closing(open_store(database)) as store:
        return stocked(store, [(a_trial(n), a_measurement(n / 3)) for n in range(3)])


def _fuzz(
    server: subprocess.Popen[str],
    port: int,
    database: str,
    calls: int,
    rng: random.Random,
) -> dict[str, Any]:
    counts: dict[str, Counter[str]] = {name: Counter() for name in REQUESTS}
    wrong: list[str] = []
    refused_ms: list[float] = []
    names, look = [""], sqlite3.connect(database)
    memory, process, began = [0.0, 0.0], psutil.Process(server.pid), time.monotonic()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for at in range(calls):
            if at % EACH_GARBAGE == 0:
                garbage(rng, port)
            if at % EACH_STOCK == 0:
                names = stock(database)
            name = rng.choice(list(REQUESTS))
            request = made(rng, name, names)
            before, started = version(look), time.perf_counter()
            code = sent(channel, name, request)
            took = (time.perf_counter() - started) * 1e3
            counts[name][code] += 1
            if code != "OK" and code not in REFUSALS:
                wrong.append(f"{name}: {code} for {request.hex()[:200]}")
            if code in REFUSALS:
                refused_ms.append(took)
                if version(look) != before:
                    wrong.append(f"{name}: {code}, and has changed {request.hex()[:200]}")
            if server.poll() is not None or len(wrong) > 100:
                wrong.append(f"stopped after {at + 1} calls, exit code {server.poll()}")
                break
            if at == int(WARM * calls):
                memory[0] = process.memory_info().rss / 2**20
        if server.poll() is None:
            memory[1] = process.memory_info().rss / 2**20
    refused_ms.sort()
    return {
        "calls": sum(sum(of.values()) for of in counts.values()),
        "garbage_connections": calls // EACH_GARBAGE,
        "seconds": round(time.monotonic() - began, 1),
        "refused": len(refused_ms),
        "refused_p99_ms": round(refused_ms[int(0.99 * (len(refused_ms) - 1))], 2),
        "rss_warm_mb": round(memory[0], 1),
        "rss_end_mb": round(memory[1], 1),
        "by_rpc": {name: dict(sorted(of.items())) for name, of in counts.items()},
        "wrong": wrong,
    }


def made(rng: random.Random, name: str, names: list[str]) -> bytes:
    """A request of one of the kinds."""
    kind = rng.choice(["odd", "nearly right", "nearly right", "bits", "hard"])
    request = REQUESTS[name]()
    paths = list(texts(request))
    if kind == "hard" and paths:
        return hard(request, rng.choice(paths), rng.choice(HARD), names)
    if kind == "nearly right":
        sensible(request, [rng.choice(names[:4:2]), *names[1:]])
        odd(rng, request, names, rng.choice([0.0, 0.1, 0.2]))
    else:
        odd(rng, request, names)
    encoded: bytes = request.SerializeToString()
    return mutated(rng, encoded) if kind == "bits" else encoded


def sent(channel: grpc.Channel, name: str, request: bytes) -> str:
    """The status. A watch is given up once it has said something, or nothing."""
    try:
        if name not in STREAMED:
            channel.unary_unary(f"/{SERVICE}/{name}")(request, timeout=LIMIT_S)
        else:
            stream = channel.unary_stream(f"/{SERVICE}/{name}")(request, timeout=GLANCE_S)
            next(iter(stream), None)
            stream.cancel()
    except grpc.RpcError as error:
        code = str(error.code().name)
        return "OK" if name == WATCH and code == "DEADLINE_EXCEEDED" else code
    return "OK"


def version(look: sqlite3.Connection) -> int:
    """Another number once somebody has written."""
    found: int = look.execute("PRAGMA data_version").fetchone()[0]
    return found


def as_table(found: dict[str, Any]) -> Table:
    """For people."""
    statuses = sorted({status for of in found["by_rpc"].values() for status in of})
    table = Table("RPC", *statuses)
    for name, of in found["by_rpc"].items():
        table.add_row(name, *(str(of.get(status, "")) for status in statuses))
    return table


if __name__ == "__main__":
    raise SystemExit(main())
