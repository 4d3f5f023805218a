"""The gRPC methods: each calls its handler in a thread and turns what it raises into a status.

It must not decide anything: `handlers.py` does. Next: `server.py`.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

import grpc

from ..errors import FormwrightError, one_line
from ..search import Fenced, SpecError
from . import errors, handlers
from .store import Store
from .wire import search_pb2 as pb
from .wire import search_pb2_grpc as pb_grpc

T = TypeVar("T")
log = logging.getLogger("formwright.service")

THREADS = 8  # transactions at once; more wait
LONGEST = 1000  # characters of a message; gRPC bounds the trailers of a call
POLL_S = 0.2  # how old an event may be when a watcher sees it

# exception -> status; the first row that fits
STATUS: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (SpecError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NotFound, grpc.StatusCode.NOT_FOUND),
    (errors.AlreadyExists, grpc.StatusCode.ALREADY_EXISTS),
    (errors.NotAllowed, grpc.StatusCode.FAILED_PRECONDITION),
    (Fenced, grpc.StatusCode.ABORTED),
)


class Servicer(pb_grpc.SearchServiceServicer):
    """The service over a store. `stop()` ends the watches, so that the server can be drained."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(THREADS, "formwright-store")
        self._stopping = asyncio.Event()

    async def CreateSearch(self, request: pb.CreateSearchRequest, context: Any) -> Any:
        return await self._answer(context, handlers.create_search, request)

    async def GetSearch(self, request: pb.GetSearchRequest, context: Any) -> Any:
        return await self._answer(context, handlers.get_search, request)

    async def ListSearches(self, request: pb.ListSearchesRequest, context: Any) -> Any:
        return await self._answer(context, handlers.list_searches, request)

    async def CancelSearch(self, request: pb.CancelSearchRequest, context: Any) -> Any:
        return await self._answer(context, handlers.cancel_search, request)

    async def ListTrials(self, request: pb.ListTrialsRequest, context: Any) -> Any:
        return await self._answer(context, handlers.list_trials, request)

    async def QueryBestArchitectures(
        self, request: pb.QueryBestArchitecturesRequest, context: Any
    ) -> Any:
        return await self._answer(context, handlers.query_best_architectures, request)

    async def WatchSearch(
        self, request: pb.WatchSearchRequest, context: Any
    ) -> AsyncIterator[pb.WatchSearchResponse]:
        after = request.after_sequence
        while not self._stopping.is_set():
            message, over = await self._answer(context, handlers.watch_search, request, after)
            if over:
                return
            if message is not None:
                after = message.last_sequence
                yield message
                continue
            try:
                await asyncio.wait_for(self._stopping.wait(), POLL_S)
            except TimeoutError:
                continue
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping; watch again")

    async def _answer(self, context: Any, handler: Callable[..., T], *given: Any) -> T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, handler, self._store, *given)
        except Exception as error:
            await self._refuse(context, error)

    async def _refuse(self, context: Any, error: Exception) -> NoReturn:
        for kind, code in STATUS:
            if isinstance(error, kind):
                await context.abort(code, one_line(str(error), LONGEST))
        id = uuid.uuid4().hex[:12]
        log.error("request failed, id %s", id, exc_info=error)
        what = f"{error} " if isinstance(error, FormwrightError) else ""
        await context.abort(grpc.StatusCode.INTERNAL, f"internal error: {what}(id {id})")
        raise AssertionError("abort returned")

    def stop(self) -> None:
        self._stopping.set()

    def close(self) -> None:
        self._threads.shutdown()
