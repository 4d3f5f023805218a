"""`Client`: the service in nouns; whoever uses it sees no message of the wire.

It must not load torch, ray or SQLAlchemy. Next: `convert.py`, `cli.py`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import grpc

from ..errors import FormwrightError
from ..search import SearchSpec, TrialState
from . import convert, errors, names
from .records import Event, SearchRecord, TrialRecord
from .settings import server_address, with_port
from .wire import search_pb2 as pb
from .wire import search_pb2_grpc as pb_grpc

# status -> what the caller sees; whatever is not here is an InternalError
RAISES: dict[grpc.StatusCode, type[FormwrightError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequest,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: errors.NotAllowed,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.CANCELLED: errors.Unavailable,  # not by us: the server went away meanwhile
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.Unavailable,
}
AGAIN_S = 0.5  # between two attempts at a server that is away
OPTIONS = (("grpc.keepalive_time_ms", 60_000),)

Bounds = Mapping[str, tuple[float | None, float | None]]


class Client:
    """A connection to a server, `host:port` (none given: `FORMWRIGHT_SERVER`, or this machine).

    Every call has a deadline of `timeout_s`. `watch` and `wait` go on over a server that restarts
    and give up when it is away for `patience_s`. Safe to use from several threads. Raises what
    `formwright.service.errors` lists.
    """

    def __init__(
        self, server: str = "", *, timeout_s: float = 30.0, patience_s: float = 60.0
    ) -> None:
        self.server = with_port(server or server_address())
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._channel = grpc.insecure_channel(self.server, options=OPTIONS)
        self._stub: Any = pb_grpc.SearchServiceStub(self._channel)

    def submit(
        self, spec: SearchSpec, *, request_id: str = "", display_name: str = ""
    ) -> SearchRecord:
        """Queues a search. With the same `request_id` the same search comes back, so that a
        request whose answer was lost can be sent again."""
        request = pb.CreateSearchRequest(
            spec=convert.to_spec(spec),
            request_id=request_id or uuid.uuid4().hex,
            display_name=display_name,
        )
        return convert.from_search(self._call("CreateSearch", request).search)

    def get(self, id: str) -> SearchRecord:
        request = pb.GetSearchRequest(name=names.search_name(id))
        return convert.from_search(self._call("GetSearch", request).search)

    def searches(self) -> Iterator[SearchRecord]:
        """All of them, the newest first; pages are fetched as they are needed."""
        for page in self._pages("ListSearches", pb.ListSearchesRequest()):
            yield from map(convert.from_search, page.searches)

    def cancel(self, id: str) -> SearchRecord:
        """Ends a search. Raises NotAllowed if it had ended by itself."""
        request = pb.CancelSearchRequest(name=names.search_name(id))
        return convert.from_search(self._call("CancelSearch", request).search)

    def watch(self, id: str, after: int = 0) -> Iterator[Event]:
        """Every event after number `after`, each once and in order, until the search has ended."""
        away_since: float | None = None
        while True:
            request = pb.WatchSearchRequest(name=names.search_name(id), after_sequence=after)
            stream = self._stub.WatchSearch(request)
            try:
                for message in stream:
                    away_since = None
                    for event in message.events:
                        after = event.sequence
                        yield convert.from_event(event)
                return
            except grpc.RpcError as error:
                now = time.monotonic()
                away_since = away_since or now
                if not _away(error) or now - away_since > self._patience_s:
                    raise _raised(error, self.server) from None
                time.sleep(AGAIN_S)
            finally:
                stream.cancel()

    def wait(self, id: str) -> SearchRecord:
        """The search, once it has ended."""
        for _ in self.watch(id):
            pass
        return self.get(id)

    def trials(self, id: str, states: Sequence[TrialState] = ()) -> Iterator[TrialRecord]:
        """The trials of a search by number; pages are fetched as they are needed."""
        request = pb.ListTrialsRequest(
            search=names.search_name(id), states=[convert.to_trial_state(s) for s in states]
        )
        for page in self._pages("ListTrials", request):
            yield from map(convert.from_trial, page.trials)

    def best(
        self,
        id: str = "",
        *,
        objectives: Sequence[str] = (),
        bounds: Bounds | None = None,
        space: str = "",
        task: str = "",
        machine: str = "",
        limit: int = 0,
    ) -> list[TrialRecord]:
        """The Pareto front of one search, or of all that match, the best of the first objective
        first. `bounds` is metric -> (lowest, highest), None for no bound."""
        if not 0 <= limit < 2**31:
            raise errors.InvalidRequest(f"limit: wanted 0 to 1000, got {limit}", "limit")
        request = pb.QueryBestArchitecturesRequest(
            search=names.search_name(id) if id else "",
            objectives=objectives,
            bounds=[
                pb.Bound(metric=metric, at_least=low, at_most=high)
                for metric, (low, high) in (bounds or {}).items()
            ],
            space=space,
            task=task,
            machine=machine,
            limit=limit,
        )
        answer = self._call("QueryBestArchitectures", request)
        return [convert.from_trial(trial) for trial in answer.trials]

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _pages(self, method: str, request: Any) -> Iterator[Any]:
        while True:
            page = self._call(method, request)
            yield page
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def _call(self, method: str, request: Any) -> Any:
        try:
            return getattr(self._stub, method)(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise _raised(error, self.server) from None


def _away(error: Any) -> bool:
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def _raised(error: Any, server: str) -> FormwrightError:
    """The exception that a status stands for."""
    kind = RAISES.get(error.code(), errors.InternalError)
    if kind is errors.Unavailable:
        why = error.details() or ""
        why = "" if why.startswith("failed to connect") else f" ({why})"
        return kind(f"no answer from {server}{why}; is `formwright serve` running there?")
    return kind(error.details())
