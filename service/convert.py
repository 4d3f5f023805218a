"""The one bridge between the wire and the nouns: a `to_` and a `from_` for each message.

It must not know the store, and decides nothing but what a message means. Next: `handlers.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from ..search import ArchSpec, SearchSpec, TrialState
from . import names
from .errors import InvalidRequest
from .records import Event, SearchRecord, SearchState, TrialRecord
from .wire import search_pb2 as pb


def to_spec(spec: SearchSpec) -> pb.SearchSpec:
    return pb.SearchSpec(**spec.to_dict())


def from_spec(message: pb.SearchSpec) -> SearchSpec:
    """What is not set has its default. Raises SpecError."""
    given: dict[str, Any] = {
        field.name: list(value)
        if isinstance(value, Sequence) and not isinstance(value, str)
        else value
        for field, value in message.ListFields()
    }
    return SearchSpec.from_dict(given)


def to_search(record: SearchRecord) -> pb.Search:
    return pb.Search(
        name=names.search_name(record.id),
        display_name=record.display_name,
        spec=to_spec(record.spec),
        state=to_search_state(record.state),
        error=record.error,
        trial_counts=[
            pb.TrialCount(state=to_trial_state(state), count=count)
            for state, count in sorted(record.counts.items())
        ],
        last_sequence=record.last_sequence,
        create_time=to_time(record.created),
        update_time=to_time(record.updated),
    )


def from_search(message: pb.Search) -> SearchRecord:
    return SearchRecord(
        id=names.search_id(message.name),
        spec=from_spec(message.spec),
        state=from_search_state(message.state),
        display_name=message.display_name,
        error=message.error,
        counts={from_trial_state(c.state): c.count for c in message.trial_counts},
        last_sequence=message.last_sequence,
        created=from_time(message.create_time),
        updated=from_time(message.update_time),
    )


def to_trial(record: TrialRecord, details: bool = True) -> pb.Trial:
    return pb.Trial(
        name=names.trial_name(record.search_id, record.number),
        number=record.number,
        state=to_trial_state(record.state),
        attempt=record.attempt,
        rung=record.rung,
        architecture=to_architecture(record.architecture),
        metrics=dict(record.values),
        machine=record.machine,
        error=record.error,
        details_json=json.dumps(record.details, sort_keys=True) if details else "",
        create_time=to_time(record.created),
        update_time=to_time(record.updated),
    )


def from_trial(message: pb.Trial) -> TrialRecord:
    details: Mapping[str, Any] = json.loads(message.details_json or "{}")
    return TrialRecord(
        search_id=names.search_id(message.name.rsplit("/trials/", 1)[0]),
        number=message.number,
        state=from_trial_state(message.state),
        attempt=message.attempt,
        rung=message.rung,
        fingerprint=message.architecture.fingerprint,
        architecture=ArchSpec.from_json(message.architecture.spec_json),
        values=dict(message.metrics),
        details=details,
        error=message.error,
        created=from_time(message.create_time),
        updated=from_time(message.update_time),
    )


def to_architecture(architecture: ArchSpec) -> pb.Architecture:
    fingerprint = architecture.fingerprint()
    return pb.Architecture(
        name=names.architecture_name(fingerprint),
        fingerprint=fingerprint,
        spec_json=architecture.to_json(),
        short=architecture.short(),
    )


def to_event(event: Event) -> pb.Event:
    message = pb.Event(sequence=event.sequence, time=to_time(event.time))
    if event.trial is not None:
        message.trial.CopyFrom(to_trial(event.trial, details=False))
    elif event.state is not None:
        state = to_search_state(event.state)
        message.state_change.CopyFrom(pb.StateChange(state=state, error=event.error))
    return message


def from_event(message: pb.Event) -> Event:
    time = from_time(message.time)
    if message.WhichOneof("change") == "trial":
        return Event(message.sequence, time, trial=from_trial(message.trial))
    change = message.state_change
    state = from_search_state(change.state)
    return Event(message.sequence, time, state=state, error=change.error)


def to_search_state(state: SearchState) -> pb.SearchState:
    value: pb.SearchState = getattr(pb, f"SEARCH_STATE_{state.value}")
    return value


def from_search_state(state: pb.SearchState) -> SearchState:
    return SearchState(pb.SearchState.Name(state).removeprefix("SEARCH_STATE_"))


def to_trial_state(state: TrialState) -> pb.TrialState:
    value: pb.TrialState = getattr(pb, f"TRIAL_STATE_{state.value}")
    return value


def from_trial_state(state: pb.TrialState, field: str = "state") -> TrialState:
    """Raises InvalidRequest for one that is not known here."""
    try:
        return TrialState(pb.TrialState.Name(state).removeprefix("TRIAL_STATE_"))
    except ValueError:
        raise InvalidRequest(f"{state} is not a state of a trial", field) from None


def to_time(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


def from_time(message: Timestamp) -> datetime:
    return message.ToDatetime(UTC)
