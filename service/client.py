"""`Client`: the service in nouns; whoever uses it sees no message of the wire.

It must not load torch, ray or SQLAlchemy. Next: `convert.py`, `cli/`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import grpc

from ..errors import FormwrightError
from ..search import ArchSpec, Plan, SearchSpec, TrialState
from . import convert, errors, names
from .records import Event, SearchRecord, TrialRecord
from .settings import server_address, with_port
from .status import raised_by
from .wire import search_pb2 as pb
from .wire import search_pb2_grpc as pb_grpc

AGAIN_S = 0.5  # between two attempts at a server that is away, by those who wait for it
RETRIES_S = (0.05, 0.1, 0.2, 0.4, 0.8)  # before a request is sent again
OPTIONS = (
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.initial_reconnect_backoff_ms", 100),  # a server is up again in a second, and clients
    ("grpc.max_reconnect_backoff_ms", 1_000),  # would else look for it after up to two minutes
    ("grpc.max_receive_message_length", 64 << 20),  # a page with all its records
)

Bounds = Mapping[str, tuple[float | None, float | None]]


class Client:
    """A connection to a server, `host:port` (none given: `FORMWRIGHT_SERVER`, or this machine).

    Every call has a deadline of `timeout_s`, and is sent again a few times while the server is
    away; its effect is there once all the same. `watch` and `wait` go on over a server that
    restarts and give up when it is away for `patience_s`. Safe to use from several threads. Raises
    what `formwright.service.errors` lists.
    """

    def __init__(
        self, server: str = "", *, timeout_s: float = 30.0, patience_s: float = 60.0
    ) -> None:
        self.server = with_port(server or server_address())
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._closed = False
        self._channel = grpc.insecure_channel(self.server, options=OPTIONS)
        self._stub: Any = pb_grpc.SearchServiceStub(self._channel)

    def submit(
        self,
        spec: SearchSpec,
        *,
        request_id: str = "",
        display_name: str = "",
        priority: int = 0,
    ) -> SearchRecord:
        """Queues a search. With the same `request_id` the same search comes back, so that a
        request whose answer was lost can be sent again."""
        request = _creation(spec, request_id, display_name, priority)
        return convert.from_search(self._call("CreateSearch", request).search)

    def plan(self, spec: SearchSpec) -> Plan:
        """What the search would do; nothing is made. Raises InvalidRequest as `submit` would."""
        request = _creation(spec, "", "", 0)
        request.validate_only = True
        return convert.from_plan(self._call("CreateSearch", request).plan)

    def get(self, id: str) -> SearchRecord:
        request = pb.GetSearchRequest(name=names.search_name(id))
        return convert.from_search(self._call("GetSearch", request).search)

    def searches(self, filter: str = "", order_by: str = "") -> Iterator[SearchRecord]:
        """All that match, the newest first if no order is given; pages are fetched as they are
        needed."""
        request = pb.ListSearchesRequest(filter=filter, order_by=order_by)
        for page in self._pages("ListSearches", request):
            yield from map(convert.from_search, page.searches)

    def update(
        self, id: str, *, revision: int = 0, request_id: str = "", **changes: Any
    ) -> SearchRecord:
        """Changes `display_name`, `priority`, `trials`, `seconds` or `flops`. Raises Stale if the
        search is not at this `revision` (0: any), NotAllowed if it has ended."""
        search, paths = convert.to_changes(changes)
        search.name = names.search_name(id)
        search.etag = convert.to_etag(revision) if revision else ""
        request = pb.UpdateSearchRequest(search=search, request_id=request_id or _new_id())
        request.update_mask.paths.extend(paths)
        return convert.from_search(self._call("UpdateSearch", request).search)

    def cancel(self, id: str, *, request_id: str = "") -> SearchRecord:
        """Ends a search. Raises NotAllowed if it had ended by itself."""
        return self._act("Cancel", id, request_id)

    def pause(self, id: str, *, request_id: str = "") -> SearchRecord:
        """Lets go of the workers until `resume`. Raises NotAllowed if the search has ended."""
        return self._act("Pause", id, request_id)

    def resume(self, id: str, *, request_id: str = "") -> SearchRecord:
        """Queues a search that was paused. Raises NotAllowed if it has ended."""
        return self._act("Resume", id, request_id)

    def delete(self, id: str, *, missing_ok: bool = False, request_id: str = "") -> None:
        """Removes a search that has ended. Raises NotAllowed if it has not."""
        request = pb.DeleteSearchRequest(
            name=names.search_name(id),
            request_id=request_id or _new_id(),
            allow_missing=missing_ok,
        )
        self._call("DeleteSearch", request)

    def watch(self, id: str, after: int = 0) -> Iterator[Event]:
        """Every event after number `after`, each once and in order, until the search has ended."""
        if not 0 <= after < 2**63:
            raise errors.InvalidRequest(f"{after} is no number of an event", "after")
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
                late = now - away_since > self._patience_s
                if self._closed or not _away(error) or late:
                    raise _raised(error, self.server) from None
                time.sleep(AGAIN_S)
            finally:
                stream.cancel()

    def wait(self, id: str) -> SearchRecord:
        """The search, once it has ended."""
        for _ in self.watch(id):
            pass
        return self.get(id)

    def trial(self, id: str, number: int) -> TrialRecord:
        request = pb.GetTrialRequest(name=names.trial_name(id, number))
        return convert.from_trial(self._call("GetTrial", request).trial)

    def trials(
        self, id: str, states: Sequence[TrialState] = (), *, filter: str = "", order_by: str = ""
    ) -> Iterator[TrialRecord]:
        """The trials of a search that match, by number if no order is given; pages are fetched as
        they are needed."""
        request = pb.ListTrialsRequest(
            search=names.search_name(id),
            states=[convert.to_trial_state(s) for s in states],
            filter=filter,
            order_by=order_by,
        )
        for page in self._pages("ListTrials", request):
            yield from map(convert.from_trial, page.trials)

    def architecture(self, fingerprint: str) -> ArchSpec:
        request = pb.GetArchitectureRequest(name=names.architecture_name(fingerprint))
        found = self._call("GetArchitecture", request).architecture
        return ArchSpec.from_json(found.spec_json)

    def best(
        self,
        id: str = "",
        *,
        objectives: Sequence[str] = (),
        bounds: Bounds | None = None,
        space: str = "",
        task: str = "",
        machine: str = "",
        weights: Mapping[str, float] | None = None,
        limit: int = 0,
    ) -> list[TrialRecord]:
        """The Pareto front of one search, or of all that match, the best of the first objective
        first; with `weights` the best by the weighted sum of these metrics, each scaled to what is
        compared. `bounds` is metric -> (lowest, highest), None for no bound."""
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
            weights=[pb.Weight(metric=m, weight=w) for m, w in (weights or {}).items()],
            limit=limit,
        )
        answer = self._call("QueryBestArchitectures", request)
        return [convert.from_trial(trial) for trial in answer.trials]

    def close(self) -> None:
        self._closed = True
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

    def _act(self, what: str, id: str, request_id: str) -> SearchRecord:
        kind = getattr(pb, f"{what}SearchRequest")
        request = kind(name=names.search_name(id), request_id=request_id or _new_id())
        return convert.from_search(self._call(f"{what}Search", request).search)

    def _pages(self, method: str, request: Any) -> Iterator[Any]:
        while True:
            page = self._call(method, request)
            yield page
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def _call(self, method: str, request: Any) -> Any:
        """Sends a request again whose answer was lost: those that change something have an id."""
        until = time.monotonic() + self._timeout_s
        for pause in (*RETRIES_S, None):
            try:
                left = max(0.0, until - time.monotonic())
                return getattr(self._stub, method)(request, timeout=left)
            except grpc.RpcError as error:
                again = _away(error) and pause is not None and not self._closed
                if not again or time.monotonic() + (pause or 0) > until:
                    raise _raised(error, self.server) from None
                time.sleep(pause or 0)
        raise AssertionError("the last one raises")


def _creation(
    spec: SearchSpec, request_id: str, display_name: str, priority: int
) -> pb.CreateSearchRequest:
    try:
        return pb.CreateSearchRequest(
            spec=convert.to_spec(spec),
            request_id=request_id or _new_id(),
            display_name=display_name,
            priority=priority,
        )
    except (ValueError, TypeError) as error:  # what no message holds
        raise errors.InvalidRequest(str(error)) from None


def _new_id() -> str:
    return uuid.uuid4().hex


def _away(error: Any) -> bool:
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def _raised(error: Any, server: str) -> FormwrightError:
    """The exception that a status stands for."""
    kind, field = raised_by(error)
    if kind is errors.Unavailable:
        why = error.details() or ""
        why = "" if why.startswith("failed to connect") else f" ({why})"
        return kind(f"no answer from {server}{why}; is `formwright serve` running there?")
    made = kind(error.details())
    if isinstance(made, errors.InvalidRequest):
        made.field = field
    return made
