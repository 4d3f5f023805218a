"""The one bridge between the wire and the nouns: a `to_` and a `from_` for each message.

It must not know the store, and decides nothing but what a message means. Next: `rpc/`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from ..search import ArchSpec, Plan, SearchSpec, TrialState
from . import names
from .errors import InvalidRequest
from .records import (
    ArtifactFile,
    ArtifactRecord,
    ArtifactState,
    Event,
    SearchRecord,
    SearchState,
    TrialRecord,
)
from .wire import search_pb2 as pb

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LARGEST = 2**63 - 1  # of what an int64 holds
BUDGETS = ("trials", "seconds", "flops")  # what a search may spend, which may change


@lru_cache(maxsize=1024)
def to_spec(spec: SearchSpec) -> pb.SearchSpec:
    """Not to be changed: whoever asks for the same has the same."""
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
        trial_counts=_counts(record),
        last_sequence=record.last_sequence,
        create_time=to_time(record.created),
        update_time=to_time(record.updated),
        priority=record.priority,
        etag=to_etag(record.revision),
        owner=record.owner,
    )


def from_etag(etag: str) -> int:
    """The revision; 0 if none is given. Raises InvalidRequest."""
    if not etag:
        return 0
    if not re.fullmatch(r"r[1-9][0-9]{0,8}", etag, re.ASCII):
        raise InvalidRequest(f"{etag[:50]!r} is not an etag of a search", "search.etag")
    return int(etag[1:])


def to_etag(revision: int) -> str:
    return f"r{revision}"


def to_changes(changes: Mapping[str, Any]) -> tuple[pb.Search, list[str]]:
    """A search that has them, and their paths. Raises InvalidRequest for what no search has."""
    of_spec = {name: value for name, value in changes.items() if name in BUDGETS}
    own = {name: value for name, value in changes.items() if name not in BUDGETS}
    try:
        search = pb.Search(spec=pb.SearchSpec(**of_spec), **own)
    except (ValueError, TypeError) as error:
        raise InvalidRequest(str(error)) from None
    return search, [*own, *(f"spec.{name}" for name in of_spec)]


def to_plan(plan: Plan) -> pb.Plan:
    return pb.Plan(
        settings=min(plan.settings, LARGEST),
        samples=[to_architecture(sample) for sample in plan.samples],
        training_flops=plan.training_flops,
    )


def from_plan(message: pb.Plan) -> Plan:
    samples = tuple(ArchSpec.from_json(sample.spec_json) for sample in message.samples)
    return Plan(message.settings, samples, message.training_flops)


def to_progress(record: SearchRecord) -> pb.Progress:
    return pb.Progress(trial_counts=_counts(record), trials=record.spec.trials)


def _counts(record: SearchRecord) -> list[pb.TrialCount]:
    return [
        pb.TrialCount(state=to_trial_state(state), count=count)
        for state, count in sorted(record.counts.items())
    ]


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
        priority=message.priority,
        revision=from_etag(message.etag) or 1,
        owner=message.owner,
    )


def to_trial(record: TrialRecord, details: bool = True) -> pb.Trial:
    """Not to be changed: what has ended is made once."""
    return _ended(_Ended(record)) if details and record.state.final else _trial(record, details)


class _Ended:
    """A trial that does not change any more, by its name."""

    def __init__(self, record: TrialRecord) -> None:
        self.record, self.place = record, (record.search_id, record.number)

    def __hash__(self) -> int:
        return hash(self.place)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Ended) and self.place == other.place


@lru_cache(maxsize=4096)
def _ended(trial: _Ended) -> pb.Trial:
    return _trial(trial.record, True)


def _trial(record: TrialRecord, details: bool) -> pb.Trial:
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
        params_json=json.dumps(dict(record.params)) if details and record.params else "",
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
        params=json.loads(message.params_json or "{}"),
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


def to_artifact(record: ArtifactRecord) -> pb.Artifact:
    return pb.Artifact(
        name=names.artifact_name(record.search_id, record.number),
        state=getattr(pb, f"ARTIFACT_STATE_{record.state.value}"),
        error=record.error,
        seeds=record.seeds,
        done_steps=record.done,
        total_steps=record.total,
        step=record.step,
        files=map(to_file, record.files),
        create_time=to_time(record.created),
        update_time=to_time(record.updated),
    )


def from_artifact(message: pb.Artifact) -> ArtifactRecord:
    id, number = names.artifact_id(message.name)
    return ArtifactRecord(
        search_id=id,
        number=number,
        state=ArtifactState(pb.ArtifactState.Name(message.state).removeprefix("ARTIFACT_STATE_")),
        error=message.error,
        seeds=message.seeds,
        done=message.done_steps,
        total=message.total_steps,
        step=message.step,
        files=tuple(map(from_file, message.files)),
        created=from_time(message.create_time),
        updated=from_time(message.update_time),
    )


def to_file(file: ArtifactFile) -> pb.ArtifactFile:
    return pb.ArtifactFile(path=file.path, size=file.size, sha256=file.sha256)


def from_file(message: pb.ArtifactFile) -> ArtifactFile:
    return ArtifactFile(message.path, message.size, message.sha256)


def to_event(event: Event) -> pb.Event:
    message = pb.Event(sequence=event.sequence, time=to_time(event.time))
    if event.trial is not None:
        message.trial.CopyFrom(to_trial(event.trial, details=False))
        if event.left is not None:
            message.front_change.CopyFrom(pb.FrontChange(left_numbers=event.left))
    elif event.state is not None:
        state = to_search_state(event.state)
        change = pb.StateChange(state=state, error=event.error, changed=event.changed)
        message.state_change.CopyFrom(change)
    return message


def from_event(message: pb.Event) -> Event:
    time = from_time(message.time)
    if message.WhichOneof("change") == "trial":
        joined = message.HasField("front_change")
        left = tuple(message.front_change.left_numbers) if joined else None
        return Event(message.sequence, time, trial=from_trial(message.trial), left=left)
    change = message.state_change
    state = from_search_state(change.state)
    changed = tuple(change.changed)
    return Event(message.sequence, time, state=state, error=change.error, changed=changed)


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
    """Of an aware time."""
    since = time - EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def from_time(message: Timestamp) -> datetime:
    return message.ToDatetime(UTC)
