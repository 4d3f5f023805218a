"""The service over a real channel: every RPC, what it returns and what it refuses."""

import sqlite3
from dataclasses import replace

import grpc
import pytest

from formwright.search import METRICS, ArchSpec, TrialState, build
from formwright.search.propose import SAMPLERS
from formwright.service import Client, SearchState
from formwright.service.errors import AlreadyExists, InvalidRequest, NotAllowed, NotFound
from formwright.service.wire import search_pb2 as pb
from formwright.service.wire import search_pb2_grpc as pb_grpc


@pytest.fixture(scope="module")
def done(server, small):
    """A search that has ended."""
    with Client(server) as client:
        search = client.submit(small, display_name="the done one")
        return client.wait(search.id)


@pytest.fixture
def stub(server):
    with grpc.insecure_channel(server) as channel:
        yield pb_grpc.SearchServiceStub(channel)


def test_a_search_from_submission_to_the_best(client, done, small):
    assert done.state is SearchState.SUCCEEDED
    assert done.spec == small
    assert done.display_name == "the done one"
    assert done.counts == {TrialState.SUCCEEDED: 3}

    trials = list(client.trials(done.id))
    assert [trial.number for trial in trials] == [0, 1, 2]
    for trial in trials:
        assert set(trial.values) == set(METRICS) - {"decode_ms", "peak_bytes"}  # on request
        assert trial.machine.startswith("m1:")
        assert trial.details["report"]["graphs"] >= 1
        assert trial.fingerprint == trial.architecture.fingerprint()

    best = client.best(done.id)
    assert {trial.number for trial in best} <= {0, 1, 2}
    model = build(best[0].architecture)
    assert sum(p.numel() for p in model.parameters()) == best[0].values["params"]


def test_watch_is_complete_ordered_and_can_be_resumed(client, done):
    events = list(client.watch(done.id))

    assert [event.sequence for event in events] == list(range(1, done.last_sequence + 1))
    states = [event.state for event in events if event.state]
    assert states == [SearchState.QUEUED, SearchState.RUNNING, SearchState.SUCCEEDED]
    of_one = [e.trial.state for e in events if e.trial and e.trial.number == 1]
    assert of_one == [TrialState.PENDING, TrialState.RUNNING, TrialState.SUCCEEDED]
    for after in (0, 1, 5, done.last_sequence):
        assert list(client.watch(done.id, after)) == events[after:]


def test_best_keeps_to_bounds_and_objectives(client, done):
    trials = list(client.trials(done.id))
    smallest = min(trial.values["params"] for trial in trials)

    (only,) = client.best(done.id, objectives=["params"])[:1]
    assert only.values["params"] == smallest
    assert client.best(done.id, bounds={"params": (None, smallest - 1)}) == []
    within = client.best(done.id, bounds={"params": (smallest, smallest)})
    assert {trial.values["params"] for trial in within} == {smallest}
    assert client.best(space="metaformer", task="digits", limit=1)
    assert client.best(space="no such space") == []
    assert client.best(done.id, machine="m1:other") == []


def test_the_same_request_makes_one_search(client, small):
    spec = replace(small, trials=1)
    first = client.submit(spec, request_id="once")
    again = client.submit(spec, request_id="once")

    assert again.id == first.id
    with pytest.raises(AlreadyExists):
        client.submit(replace(spec, seed=1), request_id="once")
    assert client.submit(spec).id != first.id
    client.wait(first.id)


def test_cancel_ends_a_search_and_prunes_its_trials(client, small):
    search = client.submit(replace(small, trials=1000))
    for event in client.watch(search.id):
        if event.trial and event.trial.state is TrialState.SUCCEEDED:
            break
    ended = client.cancel(search.id)

    assert ended.state is SearchState.CANCELLED
    assert client.cancel(search.id).state is SearchState.CANCELLED
    assert client.wait(search.id).state is SearchState.CANCELLED
    trials = list(client.trials(search.id))
    assert {t.state for t in trials} <= {TrialState.SUCCEEDED, TrialState.PRUNED}
    assert list(client.watch(search.id))[-1].sequence == ended.last_sequence
    # and the scheduler goes on with the next
    assert client.wait(client.submit(small).id).state is SearchState.SUCCEEDED


def test_a_search_that_has_ended_cannot_be_cancelled(client, done):
    with pytest.raises(NotAllowed, match="SUCCEEDED"):
        client.cancel(done.id)
    assert client.get(done.id) == done


def test_searches_are_listed_the_newest_first(client, stub, done):
    listed = list(client.searches())
    created = [search.created for search in listed]
    assert created == sorted(created, reverse=True)
    assert done in listed

    names, token = [], ""
    while True:
        page = stub.ListSearches(pb.ListSearchesRequest(page_size=1, page_token=token))
        names += [search.name for search in page.searches]
        token = page.next_page_token
        if not token:
            break
    assert names == [f"searches/{search.id}" for search in listed]


def test_trials_are_paged_and_filtered(client, stub, done):
    name = f"searches/{done.id}"
    first = stub.ListTrials(pb.ListTrialsRequest(search=name, page_size=2))
    rest = stub.ListTrials(
        pb.ListTrialsRequest(search=name, page_size=2, page_token=first.next_page_token)
    )
    assert [t.number for t in [*first.trials, *rest.trials]] == [0, 1, 2]
    assert rest.next_page_token == ""
    assert list(client.trials(done.id, [TrialState.FAILED])) == []


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (pb.SearchSpec(space="metaforme"), "unknown space 'metaforme'; known: "),
        (pb.SearchSpec(task="digit"), "Did you mean 'digits'?"),
        (pb.SearchSpec(sampler="x"), f"unknown sampler 'x'; known: {', '.join(SAMPLERS.names())}"),
        (pb.SearchSpec(trials=-1), "trials: wanted a whole number from 1"),
        (pb.SearchSpec(steps=0), "steps: wanted a whole number from 1"),
        (pb.SearchSpec(objectives=["speed"]), "unknown metric 'speed'"),
        (pb.SearchSpec(objectives=["params", "params"]), "twice"),
        (pb.SearchSpec(target=""), "target: wanted a name"),
        (pb.SearchSpec(target="x" * 100_000), "target: wanted a name"),
        (pb.SearchSpec(target="in\0ductor"), "target: wanted a name"),
    ],
)
def test_a_malformed_spec_is_refused_and_nothing_is_written(stub, client, done, spec, says):
    before = [search.id for search in client.searches()]
    with pytest.raises(grpc.RpcError) as refused:
        stub.CreateSearch(pb.CreateSearchRequest(spec=spec, request_id="bad"))

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert says in refused.value.details()
    assert [search.id for search in client.searches()] == before


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("GetSearch", pb.GetSearchRequest(name="searches/none"), "NOT_FOUND"),
        ("GetSearch", pb.GetSearchRequest(name="none"), "INVALID_ARGUMENT"),
        ("GetSearch", pb.GetSearchRequest(name="x" * 50_000), "INVALID_ARGUMENT"),
        ("GetSearch", pb.GetSearchRequest(name="searches/a' or 1=1"), "INVALID_ARGUMENT"),
        ("CancelSearch", pb.CancelSearchRequest(name="searches/none"), "NOT_FOUND"),
        ("ListTrials", pb.ListTrialsRequest(search="searches/none"), "NOT_FOUND"),
        ("ListSearches", pb.ListSearchesRequest(page_size=-1), "INVALID_ARGUMENT"),
        ("ListSearches", pb.ListSearchesRequest(page_token="?"), "INVALID_ARGUMENT"),
        (
            "QueryBestArchitectures",
            pb.QueryBestArchitecturesRequest(search="searches/none"),
            "NOT_FOUND",
        ),
        (
            "QueryBestArchitectures",
            pb.QueryBestArchitecturesRequest(objectives=["speed"]),
            "INVALID_ARGUMENT",
        ),
        (
            "QueryBestArchitectures",
            pb.QueryBestArchitecturesRequest(bounds=[pb.Bound(metric="speed")]),
            "INVALID_ARGUMENT",
        ),
        ("QueryBestArchitectures", pb.QueryBestArchitecturesRequest(limit=-1), "INVALID_ARGUMENT"),
        (
            "QueryBestArchitectures",
            pb.QueryBestArchitecturesRequest(objectives=["params", "params"]),
            "INVALID_ARGUMENT",
        ),
        (
            "QueryBestArchitectures",
            pb.QueryBestArchitecturesRequest(
                bounds=[pb.Bound(metric="params", at_most=float("nan"))]
            ),
            "INVALID_ARGUMENT",
        ),
        (
            "CreateSearch",
            pb.CreateSearchRequest(display_name="x" * 201),
            "INVALID_ARGUMENT",
        ),
        (
            "CreateSearch",
            pb.CreateSearchRequest(request_id="x" * 101),
            "INVALID_ARGUMENT",
        ),
    ],
)
def test_what_makes_no_sense_gets_its_status(stub, method, request_, code):
    with pytest.raises(grpc.RpcError) as refused:
        getattr(stub, method)(request_)

    assert refused.value.code() is grpc.StatusCode[code]
    assert "Traceback" not in refused.value.details()
    assert "\n" not in refused.value.details()


@pytest.mark.parametrize(("after", "code"), [(-1, "INVALID_ARGUMENT"), (10**9, "OUT_OF_RANGE")])
def test_a_watch_from_nowhere_is_refused(stub, done, after, code):
    request = pb.WatchSearchRequest(name=f"searches/{done.id}", after_sequence=after)
    with pytest.raises(grpc.RpcError) as refused:
        list(stub.WatchSearch(request))
    assert refused.value.code() is grpc.StatusCode[code]


def test_the_client_speaks_in_exceptions(client):
    with pytest.raises(NotFound, match="none"):
        client.get("none")
    with pytest.raises(NotFound):
        list(client.watch("none"))
    with pytest.raises(InvalidRequest):
        client.get("not an id")


def test_the_database_is_what_the_wire_says(client, done, database):
    rows = sqlite3.connect(f"file:{database}?mode=ro", uri=True).execute(
        "select spec from formwright_architectures"
    )
    stored = {ArchSpec.from_json(text).fingerprint() for (text,) in rows}
    assert {trial.fingerprint for trial in client.trials(done.id)} <= stored
