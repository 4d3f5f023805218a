"""One plain function per RPC: a message and the store in, a message out.

It must not know grpc: `servicer.py` calls these and turns their exceptions into status codes.
Next: `convert.py` for what the messages mean, `store/` for what is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..search import (
    Metric,
    SearchSpec,
    SpecError,
    metric_named,
    pareto,
    same_machine,
)
from . import convert, names
from .errors import InvalidRequest, NotAllowed
from .records import TrialRecord
from .store import Store
from .wire import search_pb2 as pb

PAGE = 50
LARGEST_PAGE = 200
LARGEST_FRONT = 1000
EVENTS = 200  # in one message of a watch


def create_search(store: Store, request: pb.CreateSearchRequest) -> pb.CreateSearchResponse:
    spec = convert.from_spec(request.spec).check_names()
    for field, longest in (("request_id", 100), ("display_name", 200)):
        if len(getattr(request, field)) > longest:
            raise InvalidRequest(f"{field}: longer than {longest} characters", field)
    made = store.create_search(spec, request.request_id, request.display_name)
    return pb.CreateSearchResponse(search=convert.to_search(made))


def get_search(store: Store, request: pb.GetSearchRequest) -> pb.GetSearchResponse:
    found = store.get_search(names.search_id(request.name))
    return pb.GetSearchResponse(search=convert.to_search(found))


def list_searches(store: Store, request: pb.ListSearchesRequest) -> pb.ListSearchesResponse:
    page = store.list_searches(_page_size(request.page_size), request.page_token)
    return pb.ListSearchesResponse(
        searches=[convert.to_search(item) for item in page.items], next_page_token=page.next
    )


def cancel_search(store: Store, request: pb.CancelSearchRequest) -> pb.CancelSearchResponse:
    ended = store.cancel_search(names.search_id(request.name))
    return pb.CancelSearchResponse(search=convert.to_search(ended))


def list_trials(store: Store, request: pb.ListTrialsRequest) -> pb.ListTrialsResponse:
    id = names.search_id(request.search, "search")
    states = [convert.from_trial_state(state, "states") for state in request.states]
    page = store.list_trials(id, _page_size(request.page_size), request.page_token, states)
    return pb.ListTrialsResponse(
        trials=[convert.to_trial(item) for item in page.items], next_page_token=page.next
    )


def watch_search(
    store: Store, request: pb.WatchSearchRequest, after: int
) -> tuple[pb.WatchSearchResponse | None, bool]:
    """What is new after an event, if anything, and whether nothing can come any more."""
    if request.after_sequence < 0:
        raise InvalidRequest(f"after_sequence: {request.after_sequence} is negative")
    id = names.search_id(request.name)
    last, state = store.progress(id)
    if after > last:
        raise InvalidRequest(f"after_sequence: {after} is beyond {last}")
    if after == last:
        return None, state.final
    events = store.events(id, after, EVENTS)
    message = pb.WatchSearchResponse(
        events=[convert.to_event(event) for event in events], last_sequence=events[-1].sequence
    )
    return message, False


def query_best_architectures(
    store: Store, request: pb.QueryBestArchitecturesRequest
) -> pb.QueryBestArchitecturesResponse:
    if not 0 <= request.limit <= LARGEST_FRONT:
        raise InvalidRequest(f"limit: wanted 0 to {LARGEST_FRONT}, got {request.limit}", "limit")
    if len(set(request.objectives)) < len(request.objectives):
        raise InvalidRequest("objectives: a metric is there twice", "objectives")
    ids = [names.search_id(request.search, "search")] if request.search else []
    spec = store.get_search(ids[0]).spec if ids else SearchSpec()
    metrics = [metric_named(name, "objectives") for name in request.objectives or spec.objectives]
    for bound in request.bounds:
        if math.isnan(bound.at_least) or math.isnan(bound.at_most):
            raise InvalidRequest(f"bounds: {bound.metric} is to be within what is no number")
    bounds = [(metric_named(b.metric, "bounds").name, b) for b in request.bounds]
    found = store.succeeded(ids, request.space, request.task)
    within = [t for t in found if all(_within(t, name, bound) for name, bound in bounds)]
    front = pareto(_comparable(within, metrics, request.machine), metrics)
    once = {trial.fingerprint: trial for trial in reversed(front)}
    best = [trial for trial in front if once[trial.fingerprint] is trial]
    return pb.QueryBestArchitecturesResponse(
        trials=[convert.to_trial(trial) for trial in best[: request.limit or 100]],
        compared=len(within),
    )


def _comparable(
    trials: Sequence[TrialRecord], metrics: Sequence[Metric], machine: str
) -> list[TrialRecord]:
    """Raises NotAllowed where numbers would be compared that do not compare."""
    tasks = sorted({str(trial.details.get("task", "")) for trial in trials})
    if len(tasks) > 1 and any(metric.name == "quality" for metric in metrics):
        raise NotAllowed(f"qualities on different tasks do not compare; one of {', '.join(tasks)}")
    try:
        return same_machine(trials, metrics, machine)
    except SpecError as error:
        raise NotAllowed(str(error)) from error


def _within(trial: TrialRecord, name: str, bound: pb.Bound) -> bool:
    value = trial.values.get(name)
    if value is None:
        return False
    low = bound.at_least if bound.HasField("at_least") else value
    high = bound.at_most if bound.HasField("at_most") else value
    return low <= value <= high


def _page_size(given: int) -> int:
    if given < 0:
        raise InvalidRequest(f"page_size: {given} is negative", "page_size")
    return min(given, LARGEST_PAGE) or PAGE
