"""A proxy that drops 30 % of the replies, after the server has done what was asked: whatever is
sent again has its effect once."""

import asyncio
import random
import threading
from collections import Counter
from contextlib import contextmanager
from itertools import pairwise

import grpc
import pytest

from formwright.search import SearchSpec
from formwright.service import Client
from formwright.service.client import remote
from formwright.service.store import open_store

from .servers import serving

DROPPED = 0.3
CALLS = 60  # of each of four threads


@contextmanager
def dropping(upstream, seed):
    """Yields the address of the proxy, and what it has counted: calls and dropped replies."""
    rng, counts, told, started = random.Random(seed), Counter(), {}, threading.Event()

    async def serve():
        channel = grpc.aio.insecure_channel(upstream)

        class Forward(grpc.GenericRpcHandler):
            def service(self, details):
                call = channel.unary_unary(details.method)

                async def forward(request, context):
                    counts["calls"] += 1
                    try:
                        answer = await call(request)
                    except grpc.RpcError as error:
                        await context.abort(error.code(), error.details())
                    if rng.random() < DROPPED:
                        counts["dropped"] += 1
                        await context.abort(grpc.StatusCode.UNAVAILABLE, "the reply was lost")
                    return answer

                return grpc.unary_unary_rpc_method_handler(forward)

        server, stop = grpc.aio.server(), asyncio.Event()
        server.add_generic_rpc_handlers((Forward(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        told.update(address=f"127.0.0.1:{port}", loop=asyncio.get_running_loop(), stop=stop)
        started.set()
        await stop.wait()
        await server.stop(1)
        await channel.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(120)
    try:
        yield told["address"], counts
    finally:
        told["loop"].call_soon_threadsafe(told["stop"].set)
        thread.join()


def test_each_request_has_its_effect_once(url, monkeypatch):
    monkeypatch.setattr(remote, "RETRIES_S", (0.0,) * 20)  # nobody gives up
    done, failures = [Counter() for _ in range(4)], []

    def work(at, address):
        rng, mine = random.Random(at), []
        try:
            with Client(address) as service:
                for call in range(CALLS):
                    if len(mine) < 3 or rng.random() < 0.2:
                        spec = SearchSpec(trials=5, seed=1000 * at + call)
                        mine.append(service.submit(spec).id)
                        done[at]["submit"] += 1
                    kind = rng.choice(["update", "pause", "resume", "delete"])
                    id = rng.choice(mine)
                    if kind == "update":
                        service.update(id, priority=rng.randint(-9, 9))
                    elif kind == "delete":
                        service.cancel(id)
                        service.delete(id)
                        mine.remove(id)
                    else:
                        after = getattr(service, kind)(id).state
                        assert after == ("PAUSED" if kind == "pause" else "QUEUED")
                    done[at][kind] += 1
                done[at]["left"] = len(mine)
        except Exception as error:
            failures.append(error)

    with serving(url) as upstream, dropping(upstream, 7) as (address, counts):
        threads = [threading.Thread(target=work, args=(at, address)) for at in range(len(done))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert counts["dropped"] > 0.25 * counts["calls"] > 0.25 * 4 * CALLS

    total = sum(done, Counter())
    store = open_store(url)
    left, token = [], ""
    while True:
        page = store.list_searches(100, token)
        left += page.items
        if not (token := page.next):
            break
    assert len(left) == total["left"] == total["submit"] - total["delete"]
    assert len({search.spec.seed for search in left}) == len(left)
    for search in left:
        events = store.events(search.id, 0, 10_000)
        assert [event.sequence for event in events] == list(range(1, search.last_sequence + 1))
        updates = sum(bool(event.changed) for event in events)
        assert search.revision == 1 + updates
        states = [event.state for event in events if not event.changed]
        assert all(a is not b for a, b in pairwise(states))
    store.close()


@pytest.mark.parametrize("what", ["deleted", "other"])
def test_an_id_that_was_used(url, what):
    store = open_store(url)
    made = store.create_search(SearchSpec(), "mine")
    with serving(url) as address, Client(address) as service:
        assert service.submit(SearchSpec(), request_id="mine").id == made.id
        service.update(made.id, trials=7)
        assert service.submit(SearchSpec(), request_id="mine").spec.trials == 7
        if what == "deleted":
            service.cancel(made.id)
            service.delete(made.id)
            with pytest.raises(LookupError, match=r"has made the search .* was deleted"):
                service.submit(SearchSpec(), request_id="mine")
        else:
            for other in (SearchSpec(trials=9), SearchSpec(seed=1)):
                with pytest.raises(Exception, match=r"was sent before|has made another"):
                    service.submit(other, request_id="mine")
            with pytest.raises(Exception, match=r"has made a search|was sent before"):
                service.cancel(made.id, request_id="mine")
    store.close()


def test_ids_are_forgotten_in_the_end(store):
    search = store.create_search(SearchSpec(), "made")
    store.update_search(search.id, {"priority": 1}, request_id="old")
    assert store.forget_requests() == 0
    store.update_search(search.id, {"priority": 1}, request_id="old")  # still known
    assert store.get_search(search.id).revision == 2
    assert store.forget_requests(days=-1) == 1
    store.update_search(search.id, {"priority": 2}, request_id="old")
    assert store.get_search(search.id).revision == 3
    assert store.create_search(SearchSpec(), "made").id == search.id
