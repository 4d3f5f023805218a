"""The gRPC methods: each row of the table is served, and what it raises becomes a status.

It must not decide anything: `rpc/` does. Next: `watch.py`, `status.py`, `server.py`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError

from ..errors import FormwrightError
from . import names
from .answers import Answers, Key
from .errors import DatabaseError, InvalidRequest, Stopping
from .rpc.methods import METHODS, SERVICE, STREAMS, Method, Stream
from .status import details_of, message_of, row_of
from .store import Store
from .watch import Hub
from .wire import search_pb2 as pb

T = TypeVar("T")
log = logging.getLogger("formwright.service")

THREADS = 8  # transactions at once; more wait


class Servicer:
    """The service over a store. `stop()` ends the watches, so that the server can be drained."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(THREADS, "formwright-store")
        self._writing = ThreadPoolExecutor(THREADS, "formwright-writing")
        self._answers = Answers()
        self._reading: dict[tuple[Key, int], asyncio.Future[bytes]] = {}
        self._stopping = False
        self.hub = Hub(store, self._in_thread)

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a server is given. Messages pass as bytes: what is kept encoded is not decoded."""
        unary = grpc.unary_unary_rpc_method_handler
        served: dict[str, Any] = {
            method.name: unary(partial(self._unary, method)) for method in METHODS
        }
        many = grpc.unary_stream_rpc_method_handler
        served |= {stream.name: many(partial(self._stream, stream)) for stream in STREAMS}
        served["WatchSearch"] = many(self._watch)
        return grpc.method_handlers_generic_handler(SERVICE, served)

    async def _unary(self, method: Method, request: bytes, context: Any) -> bytes:
        try:
            self._check_serving()
            if not method.reads:
                return await self._change(method, request)
            key, version = (method.name, request), self._store.version()
            known = self._answers.get(key, version)
            return await self._read(method, key, version) if known is None else known
        except Exception as error:
            await _refuse(context, error)

    async def _stream(self, stream: Stream, request: bytes, context: Any) -> None:
        try:
            self._check_serving()
            answers = stream.handler(self._store, _decoded(stream.request, request))
            while (answer := await self._in_thread(next, answers, None)) is not None:
                await context.write(answer.SerializeToString())
        except Exception as error:
            await _refuse(context, error)

    async def _change(self, method: Method, request: bytes) -> bytes:
        """In threads of its own: one that waits for another process to write keeps no reader
        waiting. Who has gone meanwhile, by a deadline for instance, has changed nothing."""
        gone = threading.Event()
        loop = asyncio.get_running_loop()
        given = (gone, method, self._store, request)
        try:
            return await loop.run_in_executor(self._writing, _answer_unless, *given)
        except asyncio.CancelledError:
            gone.set()
            raise

    async def _read(self, method: Method, key: Key, version: int | None) -> bytes:
        """The answer as of `version` or later. Those who ask the same at the same version, while
        it is being read, wait for one reader."""
        if version is None:
            return await self._in_thread(_answer, method, self._store, key[1])
        if method.quick:  # a file, whose readers wait for nobody: a thread would cost more
            known = _answer(method, self._store, key[1])
            self._answers.put(key, version, known)
            return known
        reading = self._reading.get((key, version))
        if reading is None:
            reading = asyncio.ensure_future(self._in_thread(_answer, method, self._store, key[1]))
            self._reading[key, version] = reading
            reading.add_done_callback(partial(self._was_read, (key, version)))
        known = await asyncio.shield(reading)  # one who is cancelled takes nobody along
        self._answers.put(key, version, known)
        return known

    def _was_read(self, what: tuple[Key, int], reading: asyncio.Future[bytes]) -> None:
        del self._reading[what]
        if not reading.cancelled():
            reading.exception()  # it is no loss if nobody waits for it any more

    async def _watch(self, request: bytes, context: Any) -> None:
        try:
            asked = _decoded(pb.WatchSearchRequest, request)
            if asked.after_sequence < 0:
                said = f"after_sequence: {asked.after_sequence} is negative"
                raise InvalidRequest(said, "after_sequence")
            id = names.search_id(asked.name)
            async with aclosing(self.hub.follow(id, asked.after_sequence)) as messages:
                async for message in messages:
                    await context.write(message)
        except Exception as error:
            await _refuse(context, error)

    def _check_serving(self) -> None:
        """Raises Stopping."""
        if self._stopping:
            raise Stopping("the server is stopping; call again")

    async def _in_thread(self, call: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *given)

    def stop(self) -> None:
        """Refuses what is new; whoever watches is sent away."""
        self._stopping = True
        self.hub.stop()

    def close(self) -> None:
        self._threads.shutdown()
        self._writing.shutdown()


def _answer(method: Method, store: Store, request: bytes) -> bytes:
    return method.handler(store, _decoded(method.request, request)).SerializeToString()


def _answer_unless(gone: threading.Event, method: Method, store: Store, request: bytes) -> bytes:
    with store.unless(gone.is_set):
        return _answer(method, store, request)


def _decoded(kind: Any, request: bytes) -> Any:
    """Raises InvalidRequest for bytes that are no such message."""
    try:
        return kind.FromString(request)
    except DecodeError:
        raise InvalidRequest(f"these bytes are no {kind.DESCRIPTOR.name}") from None


async def _refuse(context: Any, error: Exception) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):  # it was said already
        raise error
    if row := row_of(error):
        if isinstance(error, DatabaseError):  # whoever runs the server should know
            log.warning("%s", error)
        await context.abort(row.code, message_of(error), details_of(error, row))
    id = uuid.uuid4().hex[:12]
    log.error("request failed, id %s", id, exc_info=error)
    what = f"{error} " if isinstance(error, FormwrightError) else ""
    await context.abort(grpc.StatusCode.INTERNAL, f"internal error: {what}(id {id})")
    raise AssertionError("abort returned")
