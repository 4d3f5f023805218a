"""Every RPC, by everybody who may and may not call it, over a real TLS channel."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from sqlalchemy import event

from formwright.search.testing import a_measurement, a_trial
from formwright.service import convert
from formwright.service.access import Scope
from formwright.service.client.trust import Trust
from formwright.service.limits import Limits
from formwright.service.records import Action, SearchState
from formwright.service.rpc.methods import METHODS, STREAMS, WATCH
from formwright.service.status import DETAILS
from formwright.service.store import open_store
from formwright.service.wire import search_pb2 as pb
from formwright.service.wire import search_pb2_grpc as pb_grpc

from .conftest import SMALL
from .servers import serving
from .tokens import secrets_in

CODES = grpc.StatusCode
MISSING = "f" * 32


def a_search(store, owner="alice", state=SearchState.QUEUED):
    """One of a state, with a trial that succeeded once it has run; its id."""
    mine, runs = store.seen_by(None, owner), state is SearchState.SUCCEEDED
    id = mine.create_search(SMALL, "", priority=int(runs)).id
    if runs:
        claim = store.claim("tests", 60.0)
        assert claim.search.id == id
        log, trial = store.log(claim), a_trial(0)
        log.append(trial)
        log.append(trial.started())
        log.append(trial.started().succeeded(a_measurement()))
        store.finish(claim, state)
    if state is SearchState.PAUSED:
        store.act(id, Action.PAUSE)
    return id


def named(kind, field="name"):
    """A request about a search."""
    return lambda id: kind(**{field: f"searches/{id}"})


# RPC -> (the scope it takes, the state of the search it is about, a request about it)
RPCS = {
    "CreateSearch": (
        "submit",
        None,
        lambda id: pb.CreateSearchRequest(spec=convert.to_spec(SMALL)),
    ),
    "GetSearch": ("read", SearchState.QUEUED, named(pb.GetSearchRequest)),
    "ListSearches": ("read", None, lambda id: pb.ListSearchesRequest()),
    "UpdateSearch": (
        "submit",
        SearchState.QUEUED,
        lambda id: pb.UpdateSearchRequest(
            search=pb.Search(name=f"searches/{id}", display_name="x"),
            update_mask={"paths": ["display_name"]},
        ),
    ),
    "CancelSearch": ("submit", SearchState.QUEUED, named(pb.CancelSearchRequest)),
    "PauseSearch": ("submit", SearchState.QUEUED, named(pb.PauseSearchRequest)),
    "ResumeSearch": ("submit", SearchState.PAUSED, named(pb.ResumeSearchRequest)),
    "DeleteSearch": ("submit", SearchState.SUCCEEDED, named(pb.DeleteSearchRequest)),
    "GetTrial": (
        "read",
        SearchState.SUCCEEDED,
        lambda id: pb.GetTrialRequest(name=f"searches/{id}/trials/0"),
    ),
    "ListTrials": ("read", SearchState.SUCCEEDED, named(pb.ListTrialsRequest, "search")),
    "QueryBestArchitectures": (
        "read",
        SearchState.SUCCEEDED,
        named(pb.QueryBestArchitecturesRequest, "search"),
    ),
    "GetArchitecture": (
        "read",
        SearchState.SUCCEEDED,
        lambda id: pb.GetArchitectureRequest(
            name=f"architectures/{a_trial(0).architecture.fingerprint()}"
        ),
    ),
    "CreateArtifact": (
        "submit",
        SearchState.SUCCEEDED,
        lambda id: pb.CreateArtifactRequest(trial=f"searches/{id}/trials/0"),
    ),
    "GetArtifact": (
        "read",
        "kept",
        lambda id: pb.GetArtifactRequest(name=f"searches/{id}/trials/0/artifact"),
    ),
    "DownloadArtifact": (
        "read",
        "kept",
        lambda id: pb.DownloadArtifactRequest(
            name=f"searches/{id}/trials/0/artifact", path="spec.json"
        ),
    ),
    "WatchSearch": ("read", SearchState.SUCCEEDED, named(pb.WatchSearchRequest)),
    "ListSpaces": ("read", None, lambda id: pb.ListSpacesRequest()),
    "ListTasks": ("read", None, lambda id: pb.ListTasksRequest()),
    "ListBlocks": ("read", None, lambda id: pb.ListBlocksRequest()),
}
# what a caller is, and what becomes of a call that takes a scope
CALLERS = {
    "without": {"read": "UNAUTHENTICATED", "submit": "UNAUTHENTICATED"},
    "no bearer": {"read": "UNAUTHENTICATED", "submit": "UNAUTHENTICATED"},
    "garbage": {"read": "UNAUTHENTICATED", "submit": "UNAUTHENTICATED"},
    "unknown id": {"read": "UNAUTHENTICATED", "submit": "UNAUTHENTICATED"},
    "wrong secret": {"read": "UNAUTHENTICATED", "submit": "UNAUTHENTICATED"},
    "expired": {"read": "UNAUTHENTICATED", "submit": "UNAUTHENTICATED"},
    "revoked": {"read": "UNAUTHENTICATED", "submit": "UNAUTHENTICATED"},
    "reader": {"read": "OK", "submit": "PERMISSION_DENIED"},
    "submitter": {"read": "OK", "submit": "OK"},
    "admin": {"read": "OK", "submit": "OK"},
    "other reader": {"read": "NOT_FOUND", "submit": "PERMISSION_DENIED"},
    "other submitter": {"read": "NOT_FOUND", "submit": "NOT_FOUND"},
}


def test_the_table_here_has_every_rpc():
    served = {method.name: method.scope.word for method in METHODS}
    served |= {stream.name: stream.scope.word for stream in STREAMS} | {WATCH: "read"}

    assert {name: scope for name, (scope, _, _) in RPCS.items()} == served


@pytest.fixture(scope="module")
def team(tmp_path_factory, certificates):
    """A server with TLS and tokens, its store, and what each caller sends."""
    path = tmp_path_factory.mktemp("team") / "team.db"
    store = open_store(str(path))
    late = datetime.now(UTC) - timedelta(seconds=1)

    def made(owner, scope, expires=None):
        return store.access.create(owner, scope, expires)[0]

    revoked, record = store.access.create("alice", Scope.ADMIN)
    store.access.revoke(record.id)
    reader = made("alice", Scope.READ)
    sent = {
        "without": None,
        "no bearer": reader,
        "garbage": "Bearer x",
        "unknown id": f"Bearer fw_000000000000_{reader[16:]}",
        "wrong secret": f"Bearer {reader[:16]}{'A' * 43}",
        "expired": f"Bearer {made('alice', Scope.ADMIN, late)}",
        "revoked": f"Bearer {revoked}",
        "reader": f"Bearer {reader}",
        "submitter": f"Bearer {made('alice', Scope.SUBMIT)}",
        "admin": f"Bearer {made('root', Scope.ADMIN)}",
        "other reader": f"Bearer {made('bob', Scope.READ)}",
        "other submitter": f"Bearer {made('bob', Scope.SUBMIT)}",
    }
    with serving(path, tokens=True, tls=certificates.server, failures=Limits(0)) as address:
        trust = Trust(ca=certificates.ca)
        with trust.channel(address, ()) as channel:
            yield Team(store, sent, channel)
    store.close()
    assert not secrets_in(path.parent, sent.values())


class Team:
    def __init__(self, store, sent, channel):
        self.store, self.sent, self.channel = store, sent, channel
        self._kept = None

    def search(self, state):
        if state == "kept":
            if self._kept is None:
                self._kept = self._with_artifact()
            return self._kept
        return MISSING if state is None else a_search(self.store, state=state)

    def _with_artifact(self):
        id = a_search(self.store, state=SearchState.SUCCEEDED)
        self.store.artifacts.create(id, 0, 1)
        claim = self.store.artifacts.claim("tests", 60.0)
        while claim.search_id != id:
            self.store.artifacts.fail(claim, "not this one")
            claim = self.store.artifacts.claim("tests", 60.0)
        with TemporaryDirectory() as folder:
            Path(folder, "spec.json").write_text("{}")
            self.store.artifacts.finish(claim, Path(folder))
        return id

    def call(self, rpc, request, caller):
        """The code, what was said, and the answers."""
        sent = self.sent[caller]
        metadata = (("authorization", sent),) if sent else None
        stub = pb_grpc.SearchServiceStub(self.channel)
        call = getattr(stub, rpc)
        try:
            answer = call(request, timeout=30, metadata=metadata)
            streams = rpc in (WATCH, *(stream.name for stream in STREAMS))
            return "OK", "", list(answer) if streams else [answer]
        except grpc.RpcError as error:
            details = dict(error.trailing_metadata()).get(DETAILS, b"")
            return error.code().name, error.details(), details


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("rpc", RPCS)
def test_exactly_who_may_passes(team, rpc, caller):
    scope, state, request = RPCS[rpc]
    wanted = CALLERS[caller][scope]
    if wanted == "NOT_FOUND" and state is None:
        wanted = "OK"  # about no search: it is about what is one's own
    id = team.search(state)

    code, said, answers = team.call(rpc, request(id), caller)

    assert code == wanted, said
    assert not secrets_in(f"{said} {answers}", team.sent.values())
    if code == "OK" and caller.startswith("other") and rpc == "ListSearches":
        owners = {search.owner for answer in answers for search in answer.searches}
        assert owners <= {"bob"}


@pytest.mark.parametrize("rpc", [r for r, (_, state, _) in RPCS.items() if state is not None])
def test_what_is_of_others_is_as_if_it_were_not_there(team, rpc):
    _, state, request = RPCS[rpc]
    if rpc == "GetArchitecture":
        team.search(state)
        other = "a1:" + "0" * 64
        there = team.call(rpc, request(""), "other submitter")
        missing = team.call(
            rpc, pb.GetArchitectureRequest(name=f"architectures/{other}"), "other submitter"
        )
        ours = a_trial(0).architecture.fingerprint()
        assert there[1].replace(ours, other) == missing[1]
        assert there[0] == missing[0] == "NOT_FOUND"
        return
    id = team.search(state)

    code, said, details = team.call(rpc, request(id), "other submitter")
    missing = team.call(rpc, request(MISSING), "other submitter")

    assert code == missing[0] == "NOT_FOUND"
    assert said.replace(id, MISSING) == missing[1]
    assert details.replace(id.encode(), MISSING.encode()) == missing[2]


def test_what_is_of_others_takes_as_many_statements(team):
    """Neither does how long it takes tell whether there is one."""
    id, asked = team.search(SearchState.QUEUED), []
    view = team.store.seen_by("bob")
    engine = view._database._engine
    listen = lambda *given: asked.append(given[2])  # noqa: E731
    event.listen(engine, "before_cursor_execute", listen)
    try:
        for each in (id, MISSING):
            with pytest.raises(LookupError):
                view.get_search(each)
    finally:
        event.remove(engine, "before_cursor_execute", listen)
    assert len(asked) == 2
    assert asked[0] == asked[1]


def test_a_query_over_all_searches_is_over_ones_own(team):
    team.search(SearchState.SUCCEEDED)
    request = pb.QueryBestArchitecturesRequest(objectives=["quality"])

    _, _, (mine,) = team.call("QueryBestArchitectures", request, "reader")
    _, _, (theirs,) = team.call("QueryBestArchitectures", request, "other reader")

    assert mine.compared
    assert not theirs.compared


def test_an_id_of_a_request_means_something_to_its_owner_only(team):
    request = pb.CreateSearchRequest(spec=convert.to_spec(SMALL), request_id="the same")

    mine = [team.call("CreateSearch", request, "submitter")[2][0].search.name for _ in range(2)]
    code, said, (theirs,) = team.call("CreateSearch", request, "other submitter")

    assert code == "OK", said
    assert mine[0] == mine[1] != theirs.search.name
    assert theirs.search.owner == "bob"


def test_only_an_administrator_puts_a_search_before_those_of_others(team):
    id = team.search(SearchState.QUEUED)
    create = pb.CreateSearchRequest(spec=convert.to_spec(SMALL), priority=1)
    update = pb.UpdateSearchRequest(
        search=pb.Search(name=f"searches/{id}", priority=1), update_mask={"paths": ["priority"]}
    )
    for rpc, request in (("CreateSearch", create), ("UpdateSearch", update)):
        code, said, _ = team.call(rpc, request, "submitter")
        assert (code, "scope admin" in said) == ("PERMISSION_DENIED", True)
        assert team.call(rpc, request, "admin")[0] == "OK"
    assert team.call("UpdateSearch", update, "submitter")[0] == "OK"  # what it has by now
    create.priority = update.search.priority = -1  # behind them
    assert team.call("CreateSearch", create, "submitter")[0] == "OK"
    assert team.call("UpdateSearch", update, "submitter")[0] == "OK"


@pytest.mark.parametrize("caller", CALLERS)
def test_health_is_open_and_reflection_is_not(team, caller):
    sent = team.sent[caller]
    metadata = (("authorization", sent),) if sent else None
    health = health_pb2_grpc.HealthStub(team.channel)
    reflection = reflection_pb2_grpc.ServerReflectionStub(team.channel)
    question = reflection_pb2.ServerReflectionRequest(list_services="")

    assert health.Check(health_pb2.HealthCheckRequest(), timeout=30).status
    call = reflection.ServerReflectionInfo(iter([question]), timeout=30, metadata=metadata)
    if CALLERS[caller]["read"] == "UNAUTHENTICATED":
        with pytest.raises(grpc.RpcError) as caught:
            next(call)
        assert caught.value.code() is CODES.UNAUTHENTICATED
    else:
        assert next(call).list_services_response.service
        call.cancel()


def test_no_text_commands_a_terminal(team):
    for text in ("\x1b]0;mine\x07", "a\nb", "\u202e", "a\0"):
        request = pb.CreateSearchRequest(spec=convert.to_spec(SMALL), display_name=text)
        code, said, _ = team.call("CreateSearch", request, "submitter")
        assert code == "INVALID_ARGUMENT"
        assert "cannot be printed" in said
        assert said.isprintable()


def test_only_who_knows_the_secret_hears_what_is_wrong_with_it(team):
    request = pb.ListSearchesRequest()
    said = {caller: team.call("ListSearches", request, caller)[1] for caller in CALLERS}

    assert said["garbage"] == said["unknown id"] == said["wrong secret"]
    assert "was revoked" in said["revoked"]
    assert "has expired" in said["expired"]
    assert "wants a token" in said["without"]
