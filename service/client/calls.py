"""What a client can ask: each function makes a `Call`, a request and how its answer is read.

Pure: nothing is sent. What is wrong with what was given is raised here as InvalidRequest, where no
message could hold it. Next: `../convert.py`; `sync.py` and `aio.py` send these.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ...search import ArchSpec, Plan, SearchSpec, TrialState
from .. import convert, names
from ..errors import InvalidRequest
from ..records import ArtifactRecord, Event, SearchRecord, TrialRecord
from ..wire import search_pb2 as pb

Bounds = Mapping[str, tuple[float | None, float | None]]
T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """`read` makes of the answer what users see. For an RPC with pages, of a page; for a stream, of
    a message."""

    method: str
    request: Any
    read: Callable[[Any], T]


def submit(
    spec: SearchSpec, request_id: str, display_name: str, priority: int
) -> Call[SearchRecord]:
    request = _creation(spec, request_id, display_name, priority)
    return Call("CreateSearch", request, lambda answer: convert.from_search(answer.search))


def plan(spec: SearchSpec) -> Call[Plan]:
    request = _creation(spec, "", "", 0)
    request.validate_only = True
    return Call("CreateSearch", request, lambda answer: convert.from_plan(answer.plan))


def get(id: str) -> Call[SearchRecord]:
    request = pb.GetSearchRequest(name=names.search_name(id))
    return Call("GetSearch", request, lambda answer: convert.from_search(answer.search))


def searches(filter: str, order_by: str) -> Call[list[SearchRecord]]:
    request = pb.ListSearchesRequest(filter=filter, order_by=order_by)
    return Call("ListSearches", request, lambda page: list(map(convert.from_search, page.searches)))


def update(
    id: str, revision: int, request_id: str, changes: Mapping[str, Any]
) -> Call[SearchRecord]:
    search, paths = convert.to_changes(changes)
    search.name = names.search_name(id)
    search.etag = convert.to_etag(revision) if revision else ""
    request = pb.UpdateSearchRequest(search=search, request_id=request_id or _new_id())
    request.update_mask.paths.extend(paths)
    return Call("UpdateSearch", request, lambda answer: convert.from_search(answer.search))


def act(what: str, id: str, request_id: str) -> Call[SearchRecord]:
    """`what` is Cancel, Pause or Resume."""
    kind = getattr(pb, f"{what}SearchRequest")
    request = kind(name=names.search_name(id), request_id=request_id or _new_id())
    return Call(f"{what}Search", request, lambda answer: convert.from_search(answer.search))


def delete(id: str, missing_ok: bool, request_id: str) -> Call[None]:
    request = pb.DeleteSearchRequest(
        name=names.search_name(id),
        request_id=request_id or _new_id(),
        allow_missing=missing_ok,
    )
    return Call("DeleteSearch", request, lambda answer: None)


def watch(id: str, after: int) -> Call[list[Event]]:
    if not 0 <= after < 2**63:
        raise InvalidRequest(f"{after} is no number of an event", "after")
    request = pb.WatchSearchRequest(name=names.search_name(id), after_sequence=after)
    return Call("WatchSearch", request, lambda some: list(map(convert.from_event, some.events)))


def trial(id: str, number: int) -> Call[TrialRecord]:
    request = pb.GetTrialRequest(name=names.trial_name(id, number))
    return Call("GetTrial", request, lambda answer: convert.from_trial(answer.trial))


def trials(
    id: str, states: Sequence[TrialState], filter: str, order_by: str
) -> Call[list[TrialRecord]]:
    request = pb.ListTrialsRequest(
        search=names.search_name(id),
        states=[convert.to_trial_state(s) for s in states],
        filter=filter,
        order_by=order_by,
    )
    return Call("ListTrials", request, lambda page: list(map(convert.from_trial, page.trials)))


def architecture(fingerprint: str) -> Call[ArchSpec]:
    request = pb.GetArchitectureRequest(name=names.architecture_name(fingerprint))
    read = lambda answer: ArchSpec.from_json(answer.architecture.spec_json)  # noqa: E731
    return Call("GetArchitecture", request, read)


def best(
    id: str,
    *,
    objectives: Sequence[str],
    bounds: Bounds | None,
    space: str,
    task: str,
    machine: str,
    weights: Mapping[str, float] | None,
    limit: int,
) -> Call[list[TrialRecord]]:
    if not 0 <= limit < 2**31:
        raise InvalidRequest(f"limit: wanted 0 to 1000, got {limit}", "limit")
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
    read = lambda answer: list(map(convert.from_trial, answer.trials))  # noqa: E731
    return Call("QueryBestArchitectures", request, read)


def keep(id: str, number: int, seeds: int, request_id: str) -> Call[ArtifactRecord]:
    if not 0 <= seeds < 2**31:
        raise InvalidRequest(f"seeds: wanted 1 to 100, got {seeds}", "seeds")
    request = pb.CreateArtifactRequest(
        trial=names.trial_name(id, number), seeds=seeds, request_id=request_id or _new_id()
    )
    return Call("CreateArtifact", request, lambda answer: convert.from_artifact(answer.artifact))


def artifact(id: str, number: int) -> Call[ArtifactRecord]:
    request = pb.GetArtifactRequest(name=names.artifact_name(id, number))
    return Call("GetArtifact", request, lambda answer: convert.from_artifact(answer.artifact))


def download(id: str, number: int, path: str, offset: int) -> Call[tuple[int, bytes]]:
    """A piece: where it begins, and what it is."""
    request = pb.DownloadArtifactRequest(
        name=names.artifact_name(id, number), path=path, offset=offset
    )
    return Call("DownloadArtifact", request, lambda piece: (piece.offset, piece.data))


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
        raise InvalidRequest(str(error)) from None


def _new_id() -> str:
    return uuid.uuid4().hex
