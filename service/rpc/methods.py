"""The table of all RPCs. Next: `../servicer.py`, which serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from ..access import Scope
from ..store import Store
from ..wire import search_pb2 as pb
from . import artifacts, best, catalogue, searches, trials

READ, SUBMIT = Scope.READ, Scope.SUBMIT
WATCH = "WatchSearch"  # for who has READ; see `../watch.py`
SERVICE = "formwright.v1.SearchService"


@dataclass(frozen=True)
class Method:
    """A unary RPC, for who has a token of this scope. `reads` says that it changes nothing: the
    same request has the same answer for as long as the database does not change. `quick` says that
    it reads a few rows by their keys."""

    name: str
    scope: Scope
    request: type[Message]
    handler: Callable[[Store, Any], Message]
    reads: bool = False
    quick: bool = False


@dataclass(frozen=True)
class Stream:
    """An RPC with many answers, each of which is read when it can be sent. Those of `WatchSearch`
    come from elsewhere: `../watch.py`."""

    name: str
    scope: Scope
    request: type[Message]
    handler: Callable[[Store, Any], Iterator[Message]]


METHODS: tuple[Method, ...] = (
    Method("CreateSearch", SUBMIT, pb.CreateSearchRequest, searches.create_search),
    Method("GetSearch", READ, pb.GetSearchRequest, searches.get_search, reads=True, quick=True),
    Method("ListSearches", READ, pb.ListSearchesRequest, searches.list_searches, reads=True),
    Method("UpdateSearch", SUBMIT, pb.UpdateSearchRequest, searches.update_search),
    Method("CancelSearch", SUBMIT, pb.CancelSearchRequest, searches.cancel_search),
    Method("PauseSearch", SUBMIT, pb.PauseSearchRequest, searches.pause_search),
    Method("ResumeSearch", SUBMIT, pb.ResumeSearchRequest, searches.resume_search),
    Method("DeleteSearch", SUBMIT, pb.DeleteSearchRequest, searches.delete_search),
    Method("GetTrial", READ, pb.GetTrialRequest, trials.get_trial, reads=True, quick=True),
    Method("ListTrials", READ, pb.ListTrialsRequest, trials.list_trials, reads=True),
    Method(
        "QueryBestArchitectures",
        READ,
        pb.QueryBestArchitecturesRequest,
        best.query_best_architectures,
        reads=True,
    ),
    Method("GetArchitecture", READ, pb.GetArchitectureRequest, trials.get_architecture, reads=True),
    Method("CreateArtifact", SUBMIT, pb.CreateArtifactRequest, artifacts.create_artifact),
    Method(
        "GetArtifact", READ, pb.GetArtifactRequest, artifacts.get_artifact, reads=True, quick=True
    ),
    Method("ListSpaces", READ, pb.ListSpacesRequest, catalogue.list_spaces, reads=True),
    Method("ListTasks", READ, pb.ListTasksRequest, catalogue.list_tasks, reads=True),
    Method("ListBlocks", READ, pb.ListBlocksRequest, catalogue.list_blocks, reads=True),
)

STREAMS: tuple[Stream, ...] = (
    Stream("DownloadArtifact", READ, pb.DownloadArtifactRequest, artifacts.download_artifact),
)
