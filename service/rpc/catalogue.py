"""What a spec may name, and what architectures are made of: the registries, as they are installed.

They are read once: registries do not change while a server runs.
"""

from __future__ import annotations

from functools import cache

from ...search import SPACES, TASKS, count_settings
from ..convert import LARGEST
from ..store import Store
from ..wire import search_pb2 as pb


def list_spaces(store: Store, request: pb.ListSpacesRequest) -> pb.ListSpacesResponse:
    return _spaces()


def list_tasks(store: Store, request: pb.ListTasksRequest) -> pb.ListTasksResponse:
    return _tasks()


def list_blocks(store: Store, request: pb.ListBlocksRequest) -> pb.ListBlocksResponse:
    return _blocks()


@cache
def _spaces() -> pb.ListSpacesResponse:
    return pb.ListSpacesResponse(spaces=[_space(name) for name in SPACES.names()])


def _space(name: str) -> pb.Space:
    space = SPACES.load(name)
    knobs = [pb.Knob(name=g.name, choices=[str(c) for c in g.choices]) for g in space.genes]
    return pb.Space(name=space.name, knobs=knobs, settings=min(count_settings(space), LARGEST))


@cache
def _tasks() -> pb.ListTasksResponse:
    tasks = []
    for name in TASKS.names():
        task = TASKS.load(name)
        what = f"{task.score} of {task.signature}"
        tasks.append(pb.Task(name=name, summary=what))
    return pb.ListTasksResponse(tasks=tasks)


@cache
def _blocks() -> pb.ListBlocksResponse:
    from ...search import BLOCKS  # are torch modules; a server needs none to come up

    loaded = [BLOCKS.load(name) for name in BLOCKS.names()]
    return pb.ListBlocksResponse(
        blocks=[pb.Block(name=b.name, kind=b.kind.value, summary=b.source) for b in loaded]
    )
