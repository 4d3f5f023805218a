"""Watches: every event once and in order, whoever is killed, slow, late or many."""

import asyncio
import random
import threading
import time

import grpc
import pytest

from formwright.search import SearchSpec
from formwright.search.testing import a_measurement, a_trial
from formwright.service import Client, watch
from formwright.service.errors import NotFound
from formwright.service.records import Action, SearchState
from formwright.service.store import open_store
from formwright.service.wire import search_pb2 as pb
from formwright.service.wire import search_pb2_grpc as pb_grpc

from .servers import serving

SPEC = SearchSpec(trials=1000, objectives=("quality", "params"), target="eager")


@pytest.fixture
def running(url):
    """The address of a server, and the log of a search that runs."""
    store = open_store(url)
    store.create_search(SPEC, "")
    claim = store.claim("me", 600)
    with serving(url) as address:
        yield address, store, claim
    store.close()


def write(log, first, count):
    for number in range(first, first + count):
        started = a_trial(number).started()
        log.append(a_trial(number), started, started.succeeded(a_measurement(number / 1000)))


def test_watchers_that_are_cut_off_at_random_see_each_event_once(running):
    address, store, claim = running
    id, seen, failures = claim.search.id, [[] for _ in range(6)], []

    def watch(at):
        rng, after = random.Random(at), 0
        try:
            while True:
                with grpc.insecure_channel(address) as channel:
                    stub = pb_grpc.SearchServiceStub(channel)
                    request = pb.WatchSearchRequest(name=f"searches/{id}", after_sequence=after)
                    stream, left = stub.WatchSearch(request), rng.randint(1, 4)
                    for message in stream:
                        for event in message.events:
                            seen[at].append(event.sequence)
                        assert message.last_sequence == (seen[at][-1] if message.events else after)
                        after = message.last_sequence
                        left -= 1
                        if not left:
                            stream.cancel()
                            break
                    else:
                        return
                time.sleep(rng.random() / 20)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=watch, args=(at,)) for at in range(len(seen))]
    for thread in threads:
        thread.start()
    log = store.log(claim)
    for first in range(0, 120, 10):
        write(log, first, 10)
        time.sleep(0.05)
    store.finish(claim, SearchState.SUCCEEDED)
    for thread in threads:
        thread.join(60)

    assert failures == []
    wanted = list(range(1, 2 + 3 * 120 + 1 + 1))
    assert [sequences == wanted for sequences in seen] == [True] * len(seen)


def test_a_watcher_that_does_not_read_stops_nobody(running):
    address, store, claim = running
    id, log = claim.search.id, store.log(claim)
    with grpc.insecure_channel(address) as channel, Client(address) as client:
        stub = pb_grpc.SearchServiceStub(channel)
        asleep = stub.WatchSearch(pb.WatchSearchRequest(name=f"searches/{id}"))
        next(asleep)
        found = []
        reader = threading.Thread(target=lambda: found.extend(client.watch(id)))
        reader.start()
        write(log, 0, 300)  # more than what HTTP/2 lets be on its way
        deadline = time.monotonic() + 60
        while len(found) < 902 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(found) == 902
        store.finish(claim, SearchState.SUCCEEDED)
        reader.join(60)
        rest = [event.sequence for message in asleep for event in message.events]

    assert [event.sequence for event in found] == list(range(1, 904))
    assert rest[-1] == 903  # whoever slept long has missed nothing
    assert rest == list(range(rest[0], 904))


def test_what_joins_and_leaves_the_front(running):
    address, store, claim = running
    log = store.log(claim)
    write(log, 0, 3)  # the parameters are the same, the quality grows
    with Client(address) as client:
        watch = client.watch(claim.search.id)
        events = [next(watch) for _ in range(2 + 3 * 3)]
        ended = [event for event in events if event.trial and event.trial.state.final]
        assert [(event.trial.number, event.left) for event in ended] == [
            (0, ()),
            (1, (0,)),
            (2, (1,)),
        ]
        assert [event.left for event in events if event not in ended] == [None] * 8
        assert [trial.number for trial in client.best(claim.search.id)] == [2]

        client.update(claim.search.id, trials=7, priority=3)
        event = next(watch)
        assert (event.state, event.changed) == (SearchState.RUNNING, ("priority", "trials"))
        watch.close()


def test_a_search_that_is_deleted_ends_its_watches(running):
    address, store, claim = running
    store.act(claim.search.id, Action.CANCEL)
    with Client(address) as client:
        assert len(list(client.watch(claim.search.id))) == 3
        store.delete_search(claim.search.id)
        with pytest.raises(NotFound):
            list(client.watch(claim.search.id))


def test_a_server_that_stops_says_where_to_go_on(url):
    store = open_store(url)
    search = store.create_search(SPEC, "")
    messages, errors = [], []
    with serving(url) as address:
        channel = grpc.insecure_channel(address)
        stub = pb_grpc.SearchServiceStub(channel)
        stream = stub.WatchSearch(pb.WatchSearchRequest(name=f"searches/{search.id}"))
        messages.append(next(stream))

        def drain():
            try:
                messages.extend(stream)
            except grpc.RpcError as error:
                errors.append(error)

        reader = threading.Thread(target=drain)
        reader.start()
    reader.join(30)
    channel.close()
    store.close()

    bookmark = messages[-1]
    assert (list(bookmark.events), bookmark.last_sequence) == ([], 1)
    assert errors[0].code() is grpc.StatusCode.UNAVAILABLE
    assert "watch again" in errors[0].details()


def test_silence_is_told(running, monkeypatch):
    address, _, claim = running
    monkeypatch.setattr(watch, "BOOKMARK_S", 0.3)
    with grpc.insecure_channel(address) as channel:
        stub = pb_grpc.SearchServiceStub(channel)
        request = pb.WatchSearchRequest(name=f"searches/{claim.search.id}", after_sequence=1)
        stream = stub.WatchSearch(request)
        messages = [next(stream) for _ in range(3)]
        stream.cancel()
    assert [len(message.events) for message in messages] == [1, 0, 0]
    assert [message.last_sequence for message in messages] == [2, 2, 2]


def test_what_happens_while_a_watch_begins_is_not_missed(running):
    _, store, claim = running
    other = store.create_search(SPEC, "").id

    async def scenario():
        read, goes_on, told = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def in_thread(call, *given):
            result = await asyncio.to_thread(call, *given)
            if given == ([claim.search.id],) and not read.is_set():
                read.set()  # it knows how far the search is, and is slow to begin
                await goes_on.wait()
            return result

        hub = watch.Hub(store, in_thread)

        async def first():
            async for message in hub.follow(claim.search.id, 2):
                return pb.WatchSearchResponse.FromString(message)

        async def follow_other():
            async for _ in hub.follow(other, 1):
                told.set()

        looking = asyncio.ensure_future(hub.run())
        following = asyncio.ensure_future(follow_other())
        slow = asyncio.ensure_future(first())
        await asyncio.wait_for(read.wait(), 30)
        await asyncio.to_thread(write, store.log(claim), 0, 1)
        await asyncio.to_thread(store.update_search, other, {"display_name": "seen"})
        await asyncio.wait_for(told.wait(), 30)
        await asyncio.sleep(3 * watch.LOOK_S)  # looked, and there is nothing new any more
        goes_on.set()
        message = await asyncio.wait_for(slow, 30)
        hub.stop()
        following.cancel()
        await asyncio.gather(looking, following, return_exceptions=True)
        return message

    message = asyncio.run(scenario())
    assert [event.sequence for event in message.events] == [3, 4, 5]
