"""A server that is told to stop in the middle of everything: what it took on it answers, watchers
know where to go on, trials are handed back. And calls that nobody waits for any more."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import uuid

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from formwright.search import SearchSpec
from formwright.service import Client, convert
from formwright.service.embedded import address_of, start_server, stop_server
from formwright.service.store import open_store
from formwright.service.testing_history import all_searches
from formwright.service.wire import search_pb2 as pb
from formwright.service.wire import search_pb2_grpc as pb_grpc

from .servers import serving

LIMIT_S = 60
GRACE_S = 180  # until a server that was told to stop has ended
# it goes on for minutes, in small steps
LONG = SearchSpec(trials=500, steps=3, batch=32, target="eager", objectives=("quality", "params"))
COUNTS = SearchSpec(trials=3, objectives=("params", "flops"), sampler="random")
CODES = grpc.StatusCode


@contextlib.contextmanager
def started(database, log):
    with log.open("a") as file:
        process = start_server(database, workers=0, stderr=file)
    try:
        yield process, address_of(process)
    finally:
        stop_server(process)


# one that has time for what it has begun, on a machine that is busy
SLOW = """
import sys
from formwright.__main__ import main
from formwright.service import host

host.LAME_S, host.DRAIN_S = 3.0, 60.0
sys.exit(main(["serve", "--with-parent", "--workers=0", *sys.argv[1:]]))
"""


@contextlib.contextmanager
def slow_to_stop(database, log):
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", SLOW, f"--database={database}", "--port=0"]
    with log.open("a") as file:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=file, text=True)
    try:
        yield process, address_of(process)
    finally:
        stop_server(process)


@contextlib.contextmanager
def locked(database):
    """Nobody else can write in this block."""
    held = sqlite3.connect(database, LIMIT_S, isolation_level=None)
    held.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        held.close()


def creation(request_id, spec=COUNTS):
    return pb.CreateSearchRequest(spec=convert.to_spec(spec), request_id=request_id)


class Callers:
    """Threads that call and call until the server refuses; `refused` says how, `answered` are
    the request ids of those that had an answer."""

    def __init__(self, stub, id, count):
        self.refused, self.answered, self.calls = [], [], 0
        acts = [self._create, lambda s: s.GetSearch(pb.GetSearchRequest(name=id), timeout=LIMIT_S)]
        acts.append(lambda s: s.ListTrials(pb.ListTrialsRequest(search=id), timeout=LIMIT_S))
        given = [(stub, acts[at % len(acts)]) for at in range(count)]
        self._threads = [threading.Thread(target=self._call, args=each) for each in given]
        for thread in self._threads:
            thread.start()

    def _create(self, stub):
        id = uuid.uuid4().hex
        stub.CreateSearch(creation(id, COUNTS), timeout=LIMIT_S)
        self.answered.append(id)

    def _call(self, stub, act):
        while True:
            try:
                act(stub)
                self.calls += 1
            except grpc.RpcError as error:
                self.refused.append((error.code(), error.details()))
                return

    def join(self):
        for thread in self._threads:
            thread.join(LIMIT_S)
        assert not any(thread.is_alive() for thread in self._threads)


class Watcher(threading.Thread):
    """One stream: the events, whether the last message was a bookmark, and how it ended."""

    def __init__(self, stub, id, after=0):
        super().__init__()
        self.stream = stub.WatchSearch(pb.WatchSearchRequest(name=id, after_sequence=after))
        self.seen, self.last, self.code, self.grew = [], None, None, threading.Event()
        self.start()

    def run(self):
        try:
            for message in self.stream:
                self.last = message
                self.seen += [event.sequence for event in message.events]
                if len(self.seen) >= 4:  # its first trial runs
                    self.grew.set()
            self.code = CODES.OK
        except grpc.RpcError as error:
            self.code = error.code()
        self.grew.set()


class Health(threading.Thread):
    """What the health service tells, as long as it does."""

    def __init__(self, channel):
        super().__init__()
        self.told, self.changed = [], threading.Event()
        stub = health_pb2_grpc.HealthStub(channel)
        self._stream = stub.Watch(health_pb2.HealthCheckRequest())
        self.start()

    def run(self):
        with contextlib.suppress(grpc.RpcError):
            for message in self._stream:
                self.told.append(message.ServingStatus.Name(message.status))
                if len(self.told) > 1:
                    self.changed.set()
        self.changed.set()


def test_a_server_that_is_told_to_stop_under_load(tmp_path):
    database, log = tmp_path / "searches.db", tmp_path / "log"
    with slow_to_stop(database, log) as (process, address):
        with grpc.insecure_channel(address) as channel:
            stub = pb_grpc.SearchServiceStub(channel)
            made = stub.CreateSearch(creation("first", LONG), timeout=LIMIT_S).search
            watchers = [Watcher(stub, made.name) for _ in range(20)]
            assert all(watcher.grew.wait(LIMIT_S) for watcher in watchers)
            health, callers = Health(channel), Callers(stub, made.name, 24)
            with locked(database):
                # these have been taken on, and cannot be answered now
                waiting = [stub.CreateSearch.future(creation(f"w{at}")) for at in range(6)]
                until_taken(stub)
                process.send_signal(signal.SIGTERM)
                assert health.changed.wait(LIMIT_S)
            taken = [call.result(LIMIT_S).search.name for call in waiting]
            callers.join()
            for watcher in watchers:
                watcher.join(LIMIT_S)
        assert process.wait(GRACE_S) == 0

    assert health.told == ["SERVING", "NOT_SERVING"]
    assert callers.calls
    assert len(callers.refused) == 24
    assert {code for code, _ in callers.refused} == {CODES.UNAVAILABLE}, callers.refused
    assert len(set(taken)) == 6
    for watcher in watchers:
        assert watcher.code is CODES.UNAVAILABLE
        assert not watcher.last.events
        assert watcher.last.last_sequence == watcher.seen[-1]
        assert watcher.seen == list(range(1, len(watcher.seen) + 1))
    with contextlib.closing(open_store(str(database))) as store:
        kept = all_searches(store)
        assert {name.partition("/")[2] for name in taken} <= kept
        assert len(kept) >= 7 + len(callers.answered)
        claim = store.claim("other", 60)  # the lease was given back: nobody waits for its end
        assert f"searches/{claim.search.id}" == made.name
        store.release("other")
    assert log.read_text() == ""

    with serving(database) as address, Client(address) as client:
        id = made.name.partition("/")[2]
        client.cancel(id)
        for watcher in watchers[:3]:
            rest = [event.sequence for event in client.watch(id, watcher.last.last_sequence)]
            assert watcher.seen + rest == list(range(1, len(watcher.seen) + len(rest) + 1))


def until_taken(stub):
    """All that was sent before on this connection has come in: this was sent later."""
    stub.ListSpaces(pb.ListSpacesRequest(), timeout=LIMIT_S)


def test_a_call_that_nobody_waits_for_any_more_has_no_effect(tmp_path):
    database, log = tmp_path / "searches.db", tmp_path / "log"
    with started(database, log) as (_, address), grpc.insecure_channel(address) as channel:
        stub = pb_grpc.SearchServiceStub(channel)
        with locked(database):
            calls = [stub.CreateSearch.future(creation(f"r{at}"), timeout=1) for at in range(40)]
            codes = [call.code() for call in calls]
            until_taken(stub)  # and what was not, the server has heard of it
        after = stub.CreateSearch(creation("after"), timeout=LIMIT_S).search
        listed = stub.ListSearches(pb.ListSearchesRequest(), timeout=LIMIT_S).searches

    assert codes == [CODES.DEADLINE_EXCEEDED] * 40
    assert [search.name for search in listed] == [after.name]
    assert log.read_text() == ""


WRITES = """
import sys, threading
from formwright.search import SearchSpec
from formwright.service.store import open_store

def write(at):
    store = open_store(sys.argv[1])
    for number in range(25):
        store.create_search(SearchSpec(), f"{sys.argv[2]} {at} {number}")
    store.close()
    print("done", flush=True)

threads = [threading.Thread(target=write, args=(at,)) for at in range(5)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_twenty_writers_of_one_file(path):
    """Four processes of five, each with connections of its own."""
    open_store(str(path)).close()
    command = [sys.executable, "-c", WRITES, str(path)]
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen([*command, str(at)], stdout=pipe, stderr=pipe, text=True)
        for at in range(4)
    ]
    said = [process.communicate() for process in processes]

    assert said == [("done\n" * 5, "")] * 4
    raw = sqlite3.connect(path)
    assert raw.execute("SELECT count(*) FROM formwright_searches").fetchall() == [(500,)]
    assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    raw.close()


def test_a_second_signal_changes_nothing(tmp_path):
    with started(tmp_path / "searches.db", tmp_path / "log") as (process, address):
        with Client(address) as client:
            client.submit(COUNTS)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(GRACE_S) == 0
    assert (tmp_path / "log").read_text() == ""


def test_a_scheduler_that_has_no_database_says_so_in_a_line(tmp_path):
    environment = os.environ | {"FORMWRIGHT_DATABASE": str(tmp_path / "none" / "searches.db")}
    command = [sys.executable, "-m", "formwright.service.scheduler", "--owner=o", "--workers=0"]
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.PIPE, env=environment
    )

    assert done.returncode == 2
    assert done.stderr.startswith("formwright.scheduler: there is no folder")
    assert done.stderr.count("\n") == 1
