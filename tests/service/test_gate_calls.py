"""The gate over a channel: limits, ends of tokens, deadlines, and what strangers are told."""

import sqlite3
import threading

import grpc
import pytest

from formwright.service import Client, Trust, gate, servicer
from formwright.service.access import Scope
from formwright.service.limits import Limits
from formwright.service.store import open_store
from formwright.service.wire import search_pb2 as pb
from formwright.service.wire import search_pb2_grpc as pb_grpc

from .conftest import SMALL
from .servers import serving

WRONG = "fw_00112233aabb_" + "x" * 43


def tokens_of(path, *scopes):
    store = open_store(str(path))
    made = [store.access.create("alice", scope) for scope in scopes]
    store.close()
    return made


def test_a_client_that_asks_too_much_waits_and_is_answered(path):
    (text, _), (other, _) = tokens_of(path, Scope.READ, Scope.READ)
    with (
        serving(path, tokens=True, limits=Limits(rate=3.0)) as address,
        Client(address, trust=Trust(token=text)) as client,
    ):
        for _ in range(8):  # six at once, and then it sends again
            list(client.searches())
    # no time passes, so that nothing comes free again
    with serving(path, tokens=True, limits=Limits(rate=3.0, clock=lambda: 0.0)) as address:
        stub = pb_grpc.SearchServiceStub(grpc.insecure_channel(address))
        sent = (("authorization", f"Bearer {other}"),)
        codes = []
        for _ in range(12):
            try:
                stub.ListSearches(pb.ListSearchesRequest(), metadata=sent, timeout=30)
                codes.append("OK")
            except grpc.RpcError as error:
                codes.append(error.code().name)
        assert codes == ["OK"] * 6 + ["RESOURCE_EXHAUSTED"] * 6


def test_a_client_has_only_so_many_watches(path):
    ((text, _),) = tokens_of(path, Scope.READ)
    store = open_store(str(path))
    id = store.seen_by(None, "alice").create_search(SMALL, "").id
    with serving(path, tokens=True, limits=Limits(rate=0.0, at_once=2)) as address:
        stub = pb_grpc.SearchServiceStub(grpc.insecure_channel(address))
        sent = (("authorization", f"Bearer {text}"),)
        request = pb.WatchSearchRequest(name=f"searches/{id}")
        watches = [stub.WatchSearch(request, metadata=sent) for _ in range(2)]
        for watch in watches:
            next(watch)
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.WatchSearch(request, metadata=sent))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for watch in watches:
            watch.cancel()
    store.close()


def test_a_watch_ends_with_its_token(path, monkeypatch):
    monkeypatch.setattr(gate, "FRESH_S", 0.0)
    ((text, record),) = tokens_of(path, Scope.READ)
    store = open_store(str(path))
    id = store.seen_by(None, "alice").create_search(SMALL, "").id
    with serving(path, tokens=True) as address:
        stub = pb_grpc.SearchServiceStub(grpc.insecure_channel(address))
        sent = (("authorization", f"Bearer {text}"),)
        watch = stub.WatchSearch(pb.WatchSearchRequest(name=f"searches/{id}"), metadata=sent)
        next(watch)
        store.access.revoke(record.id)
        store.update_search(id, {"display_name": "news"})
        with pytest.raises(grpc.RpcError) as caught:
            list(watch)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    store.close()


def test_an_old_watch_is_begun_again_without_a_gap(path, monkeypatch):
    monkeypatch.setattr(servicer, "AGE_S", 0.0)
    store = open_store(str(path))
    id = store.create_search(SMALL, "").id
    for number in range(3):
        store.update_search(id, {"display_name": str(number)})
    with serving(path) as address, Client(address) as client:
        seen, watch = [], client.watch(id)
        for event in watch:
            seen.append(event.sequence)
            if len(seen) == 4:
                threading.Thread(target=client.cancel, args=(id,)).start()
        assert seen == [1, 2, 3, 4, 5]
    store.close()


def test_a_call_without_a_deadline_has_one(path, monkeypatch):
    monkeypatch.setattr(servicer, "LONGEST_S", 0.2)
    store = open_store(str(path))
    with serving(path) as address:
        stub = pb_grpc.SearchServiceStub(grpc.insecure_channel(address))
        with store._database.write(), pytest.raises(grpc.RpcError) as caught:  # nobody else writes
            stub.CancelSearch(pb.CancelSearchRequest(name="searches/abc"))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert caught.value.details() == "a call may take 0.2 s"
    store.close()


def test_a_message_of_a_stranger_is_not_waited_for(path):
    """Who has no token is refused by the head of its call."""
    tokens_of(path)
    with serving(path, tokens=True) as address:
        channel = grpc.insecure_channel(address)
        call = channel.stream_unary("/formwright.v1.SearchService/CreateSearch")
        never = threading.Event()
        messages = iter(lambda: never.wait(60) and b"", None)
        with pytest.raises(grpc.RpcError) as caught:
            call(messages, timeout=30)
        never.set()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        channel.close()


def test_a_call_without_a_message_is_refused(path):
    ((text, _),) = tokens_of(path, Scope.READ)
    with serving(path, tokens=True) as address, grpc.insecure_channel(address) as channel:
        call = channel.stream_unary("/formwright.v1.SearchService/ListSearches")
        with pytest.raises(grpc.RpcError) as caught:
            call(iter(()), timeout=30, metadata=(("authorization", f"Bearer {text}"),))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_what_the_database_says_is_nothing_for_strangers(path):
    tokens_of(path)
    with serving(path, tokens=True) as address, grpc.insecure_channel(address) as channel:
        with sqlite3.connect(path) as raw:
            raw.execute("DROP TABLE formwright_sessions")
            raw.execute("DROP TABLE formwright_tokens")
        with pytest.raises(grpc.RpcError) as caught:
            pb_grpc.SearchServiceStub(channel).ListSearches(
                pb.ListSearchesRequest(), metadata=(("authorization", f"Bearer {WRONG}"),)
            )
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == "the database failed; it may answer again"
