"""Searches: created, listed, changed, ended. Next: `trials.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...search import plan_of
from .. import convert, names
from ..errors import InvalidRequest, NotFound
from ..records import Action
from ..store import Store
from ..wire import search_pb2 as pb
from .checks import DISPLAY_NAME, page_size, priority, request_id, text


def _priority(store: Store, asked: pb.Search) -> int:
    id = names.search_id(asked.name, "search.name")
    now = lambda: store.get_search(id).priority  # noqa: E731
    return priority(store, asked.priority, "search.priority", now)


# path in an update mask -> how its value is read
UPDATES: dict[str, Callable[[Store, pb.Search], Any]] = {
    "display_name": lambda _, s: text(s.display_name, DISPLAY_NAME, "search.display_name"),
    "priority": _priority,
    "spec.trials": lambda _, s: s.spec.trials,
    "spec.seconds": lambda _, s: s.spec.seconds,
    "spec.flops": lambda _, s: s.spec.flops,
}


def create_search(store: Store, request: pb.CreateSearchRequest) -> pb.CreateSearchResponse:
    spec = convert.from_spec(request.spec).check_names()
    id = store.request(request_id(request.request_id))
    shown = text(request.display_name, DISPLAY_NAME, "display_name")
    first = priority(store, request.priority)
    if request.validate_only:
        asked = pb.Search(spec=convert.to_spec(spec), display_name=shown, priority=first)
        return pb.CreateSearchResponse(search=asked, plan=convert.to_plan(plan_of(spec)))
    made = store.create_search(spec, id, shown, first)
    return pb.CreateSearchResponse(search=convert.to_search(made))


def get_search(store: Store, request: pb.GetSearchRequest) -> pb.GetSearchResponse:
    found = store.get_search(names.search_id(request.name))
    return pb.GetSearchResponse(search=convert.to_search(found))


def list_searches(store: Store, request: pb.ListSearchesRequest) -> pb.ListSearchesResponse:
    page = store.list_searches(
        page_size(request.page_size), request.page_token, request.filter, request.order_by
    )
    return pb.ListSearchesResponse(
        searches=[convert.to_search(item) for item in page.items], next_page_token=page.next
    )


def update_search(store: Store, request: pb.UpdateSearchRequest) -> pb.UpdateSearchResponse:
    search, paths = request.search, list(request.update_mask.paths)
    id = names.search_id(search.name, "search.name")
    if not paths:
        raise InvalidRequest(f"names nothing; wanted some of {', '.join(UPDATES)}", "update_mask")
    for path in paths:
        if path not in UPDATES:
            said = f"{path[:50]!r} cannot be changed; wanted some of {', '.join(UPDATES)}"
            raise InvalidRequest(said, "update_mask")
    changes = {path.removeprefix("spec."): UPDATES[path](store, search) for path in paths}
    changed = store.update_search(
        id,
        changes,
        revision=convert.from_etag(search.etag),
        request_id=store.request(request_id(request.request_id)),
    )
    return pb.UpdateSearchResponse(search=convert.to_search(changed))


def _acts(action: Action, response: type[Any]) -> Callable[[Store, Any], Any]:
    """The handler of a method that moves a search by the table `ACTIONS`."""

    def handler(store: Store, request: Any) -> Any:
        id = names.search_id(request.name)
        after = store.act(id, action, store.request(request_id(request.request_id)))
        return response(search=convert.to_search(after))

    return handler


cancel_search = _acts(Action.CANCEL, pb.CancelSearchResponse)
pause_search = _acts(Action.PAUSE, pb.PauseSearchResponse)
resume_search = _acts(Action.RESUME, pb.ResumeSearchResponse)


def delete_search(store: Store, request: pb.DeleteSearchRequest) -> pb.DeleteSearchResponse:
    try:
        asked = store.request(request_id(request.request_id))
        store.delete_search(names.search_id(request.name), asked)
    except NotFound:
        if not request.allow_missing:
            raise
    return pb.DeleteSearchResponse()
