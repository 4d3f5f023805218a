"""What many ask at once is read once, and whoever gives up takes nobody along."""

import asyncio
import threading
from types import SimpleNamespace

from formwright.search import SearchSpec
from formwright.service.access import EVERYBODY
from formwright.service.gate import Gate
from formwright.service.metrics import Metrics
from formwright.service.rpc.methods import READ, Method
from formwright.service.servicer import Servicer
from formwright.service.wire import search_pb2 as pb


def test_what_is_being_read_is_read_once(file_store):
    reads, goes_on = [], threading.Event()

    def handler(store, request):
        reads.append(request.name)
        assert goes_on.wait(30)
        return pb.GetSearchResponse(search=pb.Search(priority=len(reads)))

    method = Method("GetSearch", READ, pb.GetSearchRequest, handler, reads=True)
    one, two = (pb.GetSearchRequest(name=name).SerializeToString() for name in ("one", "two"))

    async def scenario():
        metrics = Metrics(file_store.totals)
        servicer = Servicer(file_store, Gate(), metrics)
        context = SimpleNamespace(time_remaining=lambda: 30.0)

        def ask(request):
            return asyncio.ensure_future(servicer._unary(method, EVERYBODY, request, context))

        asked = [ask(one) for _ in range(5)]
        while not reads:
            await asyncio.sleep(0.01)
        asked[0].cancel()
        asked += [ask(one), ask(two)]
        await asyncio.sleep(0)
        await asyncio.to_thread(file_store.create_search, SearchSpec(), "")
        later = ask(one)  # somebody has written: what was read before may be out of date
        while len(reads) < 3:
            await asyncio.sleep(0.01)
        goes_on.set()
        found = await asyncio.gather(*asked, later, return_exceptions=True)
        servicer.close()
        return found

    cancelled, *found = asyncio.run(scenario())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert sorted(reads) == ["one", "one", "two"]
    assert len(found) == 7
    assert len(set(found[:5])) == 1
