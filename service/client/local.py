"""A database as a client sees it, without a server: the same methods, checks and errors.

Searches that are submitted so wait until a scheduler runs on the database: `formwright scheduler`,
or that of a server. It needs what a server needs, and loads it when it is made.
Next: `../rpc/methods.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from .. import names
from ..errors import InternalError, InvalidRequest, OutOfRange
from ..rpc.methods import METHODS, STREAMS
from ..status import message_of, row_of
from ..store import open_store
from ..watch import LOOK_S, known, message_after
from ..wire import search_pb2 as pb
from .remote import check_open

HANDLERS: dict[str, Callable[..., Any]] = {
    **{method.name: method.handler for method in METHODS},
    **{stream.name: stream.handler for stream in STREAMS},
}


class Local:
    """See `Wire` in `remote.py`. Raises SetupError if the database cannot be used."""

    def __init__(self, database: str) -> None:
        self.server, self.closed = database, False
        self._store = open_store(database)

    def unary(self, method: str, request: Any) -> Any:
        check_open(self)
        with self._as_a_server_says():
            return HANDLERS[method](self._store, request)

    def stream(self, method: str, request: Any) -> Generator[Any, None, None]:
        check_open(self)
        with self._as_a_server_says():
            if method == "WatchSearch":
                yield from self._watch(request)
            else:
                yield from HANDLERS[method](self._store, request)

    def _watch(self, request: pb.WatchSearchRequest) -> Iterator[pb.WatchSearchResponse]:
        """With a bookmark for each look that has found nothing: no step is long."""
        id, after = names.search_id(request.name), request.after_sequence
        while True:
            check_open(self)
            last, state = known(id, self._store.progress_of([id]).get(id))
            if after > last:
                raise OutOfRange(f"{after} is beyond the newest event, {last}", "after_sequence")
            while after < last:
                message = message_after(self._store, id, after, last)
                after = message.last_sequence
                yield message
            if state.final:
                return
            time.sleep(LOOK_S)
            yield pb.WatchSearchResponse(last_sequence=after)

    def close(self) -> None:
        self.closed = True
        self._store.close()

    @contextmanager
    def _as_a_server_says(self) -> Iterator[None]:
        """Over the wire exceptions of the search become those of the service; here as well."""
        try:
            yield
        except Exception as error:
            if isinstance(error, InternalError):
                check_open(self)  # closed in the middle of it, and so no fault of the database
            row = row_of(error)
            if row is None or isinstance(error, row.raised):
                raise
            made = row.raised(message_of(error))
            if isinstance(made, InvalidRequest):
                made.field = getattr(error, "field", "") or ""
            raise made from None
