"""Trials and the architectures that they have. Next: `best.py`."""

from __future__ import annotations

from .. import convert, names
from ..store import Store
from ..wire import search_pb2 as pb
from .checks import page_size


def get_trial(store: Store, request: pb.GetTrialRequest) -> pb.GetTrialResponse:
    id, number = names.trial_id(request.name)
    return pb.GetTrialResponse(trial=convert.to_trial(store.get_trial(id, number)))


def list_trials(store: Store, request: pb.ListTrialsRequest) -> pb.ListTrialsResponse:
    page = store.list_trials(
        names.search_id(request.search, "search"),
        page_size(request.page_size),
        request.page_token,
        [convert.from_trial_state(state, "states") for state in request.states],
        filter=request.filter,
        order_by=request.order_by,
    )
    return pb.ListTrialsResponse(
        trials=[convert.to_trial(item) for item in page.items], next_page_token=page.next
    )


def get_architecture(
    store: Store, request: pb.GetArchitectureRequest
) -> pb.GetArchitectureResponse:
    spec, where = store.get_architecture(names.fingerprint(request.name))
    return pb.GetArchitectureResponse(
        architecture=convert.to_architecture(spec),
        trials=[names.trial_name(*trial) for trial in where],
    )
