"""The cell `watch` of `service.py`: a thousand who watch one search, and one who sleeps.

    python benchmarks/service_watch.py readers|events JSON

The server, the readers and the writer are a process each. Readers are plain streams of bytes. What
arrives is the same for all, so it is decoded once; of every stream it is checked that each message
goes on where the one before ended. The times are of the clock that all processes of a machine
share. The sleeper reads one message, and the others once all is over. Next: `service_servers.py`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import grpc
import measure
import psutil
from service_load import OURS, percentile
from service_servers import beside

CHANNEL = 100  # streams on one connection
EVENTS = 50  # a second
BEFORE = 2  # the event that all have seen before the others are written


class Readers:
    """So many streams of one search; `run` returns once each has seen event number `last`."""

    def __init__(self, search: str, last: int) -> None:
        from formwright.service.wire import search_pb2 as pb

        self._decode = pb.WatchSearchResponse.FromString
        self._after, self._last = BEFORE - 1, last
        request = pb.WatchSearchRequest(name=search, after_sequence=self._after)
        self._request = request.SerializeToString()
        self._known: dict[bytes, tuple[int, int]] = {}
        self.arrived: list[tuple[int, float, int]] = []  # message: first event, time, last event
        self.wrong = self.opened = 0

    async def sleeper(self, channel: grpc.aio.Channel, wakes: asyncio.Event) -> bool:
        """Whether it got everything, once it was awake."""
        stream = channel.unary_stream(f"{OURS}/WatchSearch")(self._request)
        after = self._after
        while after < self._last:
            first, last = self._read(await stream.read())
            if first != after + 1:
                return False
            self.opened += first == BEFORE
            after = max(after, last)
            await wakes.wait()
        stream.cancel()
        return True

    async def one(self, channel: grpc.aio.Channel) -> None:
        stream = channel.unary_stream(f"{OURS}/WatchSearch")(self._request)
        after, clock, arrived = self._after, time.monotonic, self.arrived
        while after < self._last:
            message = await stream.read()
            now = clock()
            if message is grpc.aio.EOF:
                raise RuntimeError(f"a watch ended after event {after} of {self._last}")
            first, last = self._known.get(message) or self._read(message)
            if last < first:  # a bookmark
                continue
            self.wrong += first != after + 1
            if first == BEFORE:
                self.opened += 1
            else:
                arrived.append((first, now, last))
            after = last
        stream.cancel()

    def _read(self, message: bytes) -> tuple[int, int]:
        read = self._decode(message)
        numbers = [event.sequence for event in read.events]
        first = numbers[0] if numbers else read.last_sequence + 1
        self.wrong += numbers != list(range(first, read.last_sequence + 1))
        if len(self._known) > 1000:
            self._known.clear()
        self._known[message] = first, read.last_sequence
        return first, read.last_sequence


async def _readers(address: str, count: int, search: str, last: int) -> None:
    readers = Readers(search, last)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    channels = [
        grpc.aio.insecure_channel(address, options=options) for _ in range(-(-count // CHANNEL))
    ]
    tasks = [
        asyncio.ensure_future(readers.one(channels[at % len(channels)])) for at in range(count)
    ]
    wakes = asyncio.Event()
    asleep = grpc.aio.insecure_channel(address, options=options)
    sleeper = asyncio.ensure_future(readers.sleeper(asleep, wakes))
    while readers.opened < count + 1:
        await asyncio.sleep(0.05)
    used = time.process_time()
    print("ready", flush=True)
    await asyncio.gather(*tasks)
    told: dict[str, Any] = {"arrived": readers.arrived, "cpu_s": time.process_time() - used}
    wakes.set()
    told |= {"sleeper": await asyncio.wait_for(sleeper, 60), "wrong": readers.wrong}
    print(json.dumps(told))
    await asleep.close()
    for channel in channels:
        await channel.close()


def _events(database: str, rate: float, seconds: float, search: str) -> None:
    """Writes so many events a second, each in a commit of its own, and says when it was durable."""
    from dataclasses import replace

    from formwright.search.testing import a_measurement, a_trial
    from formwright.service.records import Claim
    from formwright.service.store import open_store

    store = open_store(database)
    record = store.get_search(search)
    log = store.log(Claim(record, "the benchmark", 1))  # it was claimed once
    number, sequence = 0, record.last_sequence
    told, moves = [], []
    print("ready", flush=True)
    sys.stdin.readline()
    begin = time.monotonic()
    for at in range(int(rate * seconds)):
        if not moves:
            trial = replace(a_trial(), number=number)
            started = trial.started()
            moves, number = [trial, started, started.succeeded(a_measurement())], number + 1
        time.sleep(max(0.0, begin + at / rate - time.monotonic()))
        log.append(moves.pop(0))
        sequence += 1
        told.append((sequence, time.monotonic()))
    store.close()
    print(json.dumps(told), flush=True)


# --- the cell -----------------------------------------------------------------------------------


def watch(watchers: int, seconds: float, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """What came of so many who watch a search of 50 events a second, beside one who sleeps."""
    found = []
    for at in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            found.append(_watched(f"{folder}/watched.db", watchers, seconds))
        say(f"watch: round {at + 1} of {rounds}")
    return {"rounds": found, "watchers": watchers, "events_a_second": EVENTS, "failed": {}}


def _watched(database: str, watchers: int, seconds: float) -> dict[str, Any]:
    from formwright.search import SearchSpec
    from formwright.service.store import open_store

    store = open_store(database)
    spec = SearchSpec(trials=100_000, objectives=("quality", "params"), target="eager")
    search = store.create_search(spec, "").id
    assert store.claim("the benchmark", 3600) is not None
    store.close()
    events = int(EVENTS * seconds)
    with beside("ours", database=database) as address:
        server = _server(database)
        before = server.memory_info().rss
        task = {"address": address, "search": f"searches/{search}", "last": BEFORE + events}
        readers = _process("readers", **task, count=watchers)
        joined = server.memory_info().rss
        writer = _process("events", database=database, rate=EVENTS, seconds=seconds, search=search)
        used = sum(server.cpu_times()[:2])
        told = dict(json.loads(_end(writer, "go\n")))
        read = json.loads(_end(readers, ""))
        used, after = sum(server.cpu_times()[:2]) - used, server.memory_info().rss
    late = [
        (now - told[sequence]) * 1e3
        for first, now, last in read["arrived"]
        for sequence in range(first, last + 1)
    ]
    ended = max(now for _, now, _ in read["arrived"])
    return {
        "deliveries": len(late),
        "wanted": watchers * events,
        "a_second": round(len(late) / (ended - min(told.values())), 1),
        "messages": len(read["arrived"]),
        **{f"p{share}_ms": round(percentile(late, share), 1) for share in (50, 99, 100)},
        "wrong": read["wrong"],
        "sleeper_read_all": read["sleeper"],
        "server_s": round(used, 2),
        "readers_s": round(read["cpu_s"], 2),
        "kb_a_watcher": round((joined - before) / watchers / 1024, 1),
        "kb_a_watcher_after": round((after - before) / watchers / 1024, 1),
    }


def _server(database: str) -> psutil.Process:
    """The one that serves this database."""
    children = psutil.Process().children()
    return next(child for child in children if any(database in part for part in child.cmdline()))


def _process(kind: str, **task: Any) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, kind, json.dumps(task)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if process.stdout is None or not process.stdout.readline():
        raise measure.Failed(f"the {kind} ended with exit code {process.wait()}")
    return process


def _end(process: subprocess.Popen[str], told: str) -> str:
    """The last line that it prints, once it is told to go on."""
    out, _ = process.communicate(told)
    if process.returncode:
        raise measure.Failed(f"exit code {process.returncode} of {process.args}")
    return out.splitlines()[-1]


def table(row: dict[str, Any]) -> list[tuple[str, ...]]:
    """What, the median over rounds, the goal."""
    rounds = row["rounds"]

    def middle(name: str) -> float:
        return statistics.median(found[name] for found in rounds)

    wrong = sum(found["wrong"] + found["wanted"] - found["deliveries"] for found in rounds)
    asleep = sum(not found["sleeper_read_all"] for found in rounds)
    wanted = row["watchers"] * row["events_a_second"]
    shown = [
        ("deliveries a second", f"{middle('a_second'):,.0f}", f"{wanted:,} are written"),
        ("commit to receipt, p50, ms", f"{middle('p50_ms'):.0f}", ""),
        ("commit to receipt, p99, ms", f"{middle('p99_ms'):.0f}", "250"),
        ("the slowest, ms", f"{middle('p100_ms'):.0f}", ""),
        ("missing, twice or out of order", str(wrong), "0"),
        ("sleepers that missed something", str(asleep), "0"),
        ("KB of the server for a watcher", f"{middle('kb_a_watcher_after'):.0f}", "60"),
        ("messages", f"{middle('messages'):,.0f}", ""),
        ("seconds of processor: server, readers", f"{middle('server_s'):.1f}", ""),
    ]
    shown[-1] = (shown[-1][0], f"{shown[-1][1]}, {middle('readers_s'):.1f}", "")
    return shown


def main() -> int:
    kind, task = sys.argv[1], json.loads(sys.argv[2])
    if kind == "events":
        _events(**task)
    else:
        asyncio.run(_readers(**task))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
