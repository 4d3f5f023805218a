"""Every RPC that moves a search, in every state that a search can be in, over a real channel: it
moves by the table, or is refused and leaves every row as it was."""

from itertools import count

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2, status_pb2
from sqlalchemy import select, true

from formwright.search import SearchSpec
from formwright.search.testing import a_measurement, a_trial
from formwright.service.records import ACTIONS, Action, SearchState
from formwright.service.store import open_store
from formwright.service.store.engine import Database, read_url
from formwright.service.store.schema import events, front, metrics, requests, searches, trials
from formwright.service.wire import search_pb2 as pb
from formwright.service.wire import search_pb2_grpc as pb_grpc

from .servers import serving

SPEC = SearchSpec(trials=5, target="eager")
EVENTS = events.name
PRIORITIES = count(1)  # what is made last is claimed next
END = {SearchState.SUCCEEDED, SearchState.FAILED}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def place(request, tmp_path_factory):
    """The URL of a database, and the database."""
    folder = tmp_path_factory.mktemp("actions")
    of_kind = {
        "sqlite": lambda: str(folder / "store.db"),
        "postgresql": lambda: request.getfixturevalue("postgresql")(),
    }
    url = of_kind[request.param]()
    open_store(url).close()
    database = Database(read_url(url))
    yield url, database
    database.close()


@pytest.fixture(scope="module")
def store(place):
    store = open_store(place[0])
    yield store
    store.close()


@pytest.fixture(scope="module")
def stub(place):
    """Of a server that runs nothing."""
    with serving(place[0]) as address, grpc.insecure_channel(address) as channel:
        yield pb_grpc.SearchServiceStub(channel)


def search_in(store, state):
    """The id of a search with a trial that has succeeded and one that runs, or ran."""
    made = store.create_search(SPEC, "", priority=next(PRIORITIES))
    if state is not SearchState.QUEUED:
        claim = store.claim("me", 60)
        assert claim.search.id == made.id
        for number in range(2):
            store.log(claim).append(a_trial(number), a_trial(number).started())
        store.log(claim).append(a_trial(0).started().succeeded(a_measurement()))
        if state in END:
            store.finish(claim, state)
        if state is SearchState.PAUSED:
            store.act(made.id, Action.PAUSE)
        if state is SearchState.CANCELLED:
            store.act(made.id, Action.CANCEL)
    assert store.get_search(made.id).state is state
    return made.id


def rows(place, id):
    """All that the database has of it, and all requests."""
    with place[1].read() as connection:
        key = connection.execute(select(searches.c.key).where(searches.c.id == id)).scalar_one()
        of = {table: table.c.search_key == key for table in (trials, metrics, events, front)}
        of |= {searches: searches.c.key == key, requests: true()}
        return {
            table.name: connection.execute(
                select(table).where(only).order_by(*table.primary_key)
            ).all()
            for table, only in of.items()
        }


def update(field, value):
    def call(stub, name, request_id):
        search = pb.Search(name=name)
        of = search.spec if field.startswith("spec.") else search
        setattr(of, field.removeprefix("spec."), value)
        mask = FieldMask(paths=[field])
        return stub.UpdateSearch(
            pb.UpdateSearchRequest(search=search, update_mask=mask, request_id=request_id)
        )

    return call


# what is asked, and which row of the table decides
CALLS = {
    "CancelSearch": Action.CANCEL,
    "PauseSearch": Action.PAUSE,
    "ResumeSearch": Action.RESUME,
    "DeleteSearch": Action.DELETE,
    "priority": Action.UPDATE,
    "spec.trials": Action.UPDATE,
    "display_name": Action.RENAME,
}
VALUES = {"priority": 3, "spec.trials": 9, "display_name": "mine"}


def asked(stub, call, name, request_id=""):
    if call in VALUES:
        return update(call, VALUES[call])(stub, name, request_id)
    kind = getattr(pb, f"{call}Request")
    return getattr(stub, call)(kind(name=name, request_id=request_id))


@pytest.mark.parametrize("state", list(SearchState))
@pytest.mark.parametrize("call", CALLS)
def test_every_pair(stub, place, store, call, state):
    id = search_in(store, state)
    name, before = f"searches/{id}", rows(place, id)
    after = ACTIONS[CALLS[call]].get(state)
    if after is None:
        with pytest.raises(grpc.RpcError) as caught:
            asked(stub, call, name, f"{call}{state}")
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert reason(caught.value) == "WRONG_STATE"
        assert f"is {state} and cannot be {CALLS[call].value}" in caught.value.details()
        assert rows(place, id) == before
        return

    answer = asked(stub, call, name, f"{call}{state}")
    if call == "DeleteSearch":
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetSearch(pb.GetSearchRequest(name=name))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        asked(stub, call, name, f"{call}{state}")  # again, which is no error
        return
    assert pb.SearchState.Name(answer.search.state) == f"SEARCH_STATE_{after}"
    once = rows(place, id)
    assert (once[EVENTS] == before[EVENTS]) == (after is state and call not in VALUES)
    assert once[EVENTS][: len(before[EVENTS])] == before[EVENTS]
    again = asked(stub, call, name, f"{call}{state}")  # the answer was lost, say
    assert again == answer
    assert rows(place, id) == once


@pytest.mark.parametrize("call", CALLS)
def test_a_request_id_is_for_one_request(stub, place, store, call):
    one, two = (search_in(store, SearchState.PAUSED) for _ in range(2))
    asked(stub, "display_name", f"searches/{one}", f"id of {call}")
    before = rows(place, two)
    with pytest.raises(grpc.RpcError) as caught:
        asked(stub, call, f"searches/{two}", f"id of {call}")

    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert reason(caught.value) == "REQUEST_ID_REUSED"
    assert rows(place, two) == before


def reason(error):
    """Of the details, which every error of ours has."""
    (packed,) = [value for name, value in error.trailing_metadata() if name.endswith("details-bin")]
    status = status_pb2.Status.FromString(packed)
    assert status.message == error.details()
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "formwright"
    return info.reason
