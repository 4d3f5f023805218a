"""Artefacts: asked for, looked at, downloaded. Next: `../store/artifacts.py`."""

from __future__ import annotations

from collections.abc import Iterator

from .. import convert, names
from ..errors import InvalidRequest
from ..store import Store
from ..wire import search_pb2 as pb
from .checks import request_id

MOST_SEEDS = 100


def create_artifact(store: Store, request: pb.CreateArtifactRequest) -> pb.CreateArtifactResponse:
    if not 0 <= request.seeds <= MOST_SEEDS:
        raise InvalidRequest(f"seeds: wanted 1 to {MOST_SEEDS}, got {request.seeds}", "seeds")
    id, number = names.trial_id(request.trial, "trial")
    asked = store.request(request_id(request.request_id))
    made = store.artifacts.create(id, number, request.seeds, asked)
    return pb.CreateArtifactResponse(artifact=convert.to_artifact(made))


def get_artifact(store: Store, request: pb.GetArtifactRequest) -> pb.GetArtifactResponse:
    found = store.artifacts.get(*names.artifact_id(request.name))
    return pb.GetArtifactResponse(artifact=convert.to_artifact(found))


def download_artifact(
    store: Store, request: pb.DownloadArtifactRequest
) -> Iterator[pb.DownloadArtifactResponse]:
    """At least one message, with what the file is."""
    id, number = names.artifact_id(request.name)
    offset = request.offset
    file, data = store.artifacts.piece(id, number, request.path, offset)
    yield pb.DownloadArtifactResponse(file=convert.to_file(file), offset=offset, data=data)
    while (offset := offset + len(data)) < file.size:
        _, data = store.artifacts.piece(id, number, request.path, offset)
        yield pb.DownloadArtifactResponse(offset=offset, data=data)
