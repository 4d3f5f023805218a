"""The gRPC methods: each row of the table is served, and what it raises becomes a status.

It must not decide anything: `rpc/` does. Next: `watch.py`, `status.py`, `server.py`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError

from ..errors import FormwrightError
from . import names
from .access import EVERYBODY, Caller, Scope
from .answers import Answers, Key
from .calls import Call, Calls, about
from .errors import DatabaseError, InvalidRequest, Stopping, TooLate
from .gate import Gate
from .guard import authorization
from .labels import carried
from .metrics import Metrics
from .rpc.methods import METHODS, READ, SERVICE, STREAMS, WATCH, Method, Stream
from .status import details_of, message_of, row_of
from .store import Store
from .watch import Hub
from .wire import search_pb2 as pb

T = TypeVar("T")
log = logging.getLogger("formwright.service")

THREADS = 8  # transactions at once; more wait
LONGEST_S = 60.0  # that a call without a deadline may take
AGE_S = 3600.0  # of a watch, after which its client is asked to begin another


class Servicer:
    """The service over a store. `stop()` ends the watches, so that the server can be drained."""

    def __init__(self, store: Store, gate: Gate, metrics: Metrics) -> None:
        self._store, self._gate, self._calls = store, gate, Calls(metrics)
        self._threads = ThreadPoolExecutor(THREADS, "formwright-store")
        self._writing = ThreadPoolExecutor(THREADS, "formwright-writing")
        self._answers = Answers()
        self._reading: dict[tuple[Key, int], asyncio.Future[bytes]] = {}
        self._stopping = False
        self.hub = Hub(store, self._in_thread)
        metrics.follow("formwright_watchers", lambda: self.hub.watchers)
        metrics.follow("formwright_answer_lookups_total", self._answers.lookups)

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a server is given. Messages pass as bytes: what is kept encoded is not decoded."""
        # with tokens a message is read once its sender is known: a stranger's is never held
        kind = "unary" if self._gate.is_open else "stream"
        unary, many = (
            getattr(grpc, f"{kind}_{to}_rpc_method_handler") for to in ("unary", "stream")
        )
        served: dict[str, Any] = {
            method.name: unary(
                self._told(method.name, method.request, method.scope, partial(self._unary, method))
            )
            for method in METHODS
        }
        served |= {
            stream.name: many(
                self._told(stream.name, stream.request, stream.scope, partial(self._stream, stream))
            )
            for stream in STREAMS
        }
        served[WATCH] = many(self._told(WATCH, pb.WatchSearchRequest, READ, self._watch))
        return grpc.method_handlers_generic_handler(SERVICE, served)

    def _told(
        self,
        name: str,
        kind: Any,
        scope: Scope,
        answer: Callable[[Caller, bytes, Any], Awaitable[T]],
    ) -> Any:
        """A handler that asks who calls, whose calls are told of, and that refuses what `answer`
        raises."""

        async def handle(given: Any, context: Any) -> T:
            with self._calls.of(name, kind) as call:
                try:
                    self._check_serving()
                    caller = await self._admitted(call, context, scope)
                    with self._gate.held(caller):
                        call.request = given if self._gate.is_open else await _received(given)
                        return await answer(caller, call.request, context)
                except Exception as error:
                    await self._refuse(call, context, error)

        return handle

    async def _unary(self, method: Method, caller: Caller, request: bytes, context: Any) -> bytes:
        if method.reads:
            version = self._store.version()
            key = _key(method.name, caller), request
            if (known := self._answers.get(key, version)) is not None:
                return known
        async with _in_time(context):
            store = self._store.seen_by(caller.sees, caller.owner)
            if not method.reads:
                return await self._change(store, method, request)
            return await self._read(store, method, key, version)

    async def _stream(self, stream: Stream, caller: Caller, request: bytes, context: Any) -> None:
        store = self._store.seen_by(caller.sees, caller.owner)
        answers = stream.handler(store, _decoded(stream.request, request))
        while (answer := await self._in_thread(next, answers, None)) is not None:
            await self._gate.again(caller)
            await context.write(answer.SerializeToString())

    async def _refuse(self, call: Call, context: Any, error: Exception) -> NoReturn:
        if isinstance(error, grpc.aio.AbortError):  # it was said already
            raise error
        if row := row_of(error):
            said = message_of(error)
            if isinstance(error, DatabaseError):  # whoever runs the server should know
                log.warning("%s", error)
                # where it is, and what it is made of, is nothing for strangers
                said = said if self._gate.is_open else "the database failed; it may answer again"
            call.refused(row.code.name, row.reason, said)
            await context.abort(row.code, said, details_of(error, row, said))
        log.error("request failed, id %s", call.id, exc_info=error)
        call.refused(grpc.StatusCode.INTERNAL.name, grpc.StatusCode.INTERNAL.name)
        told = isinstance(error, FormwrightError) and self._gate.is_open
        what = f"{error} " if told else ""
        await context.abort(grpc.StatusCode.INTERNAL, f"internal error: {what}(id {call.id})")
        raise AssertionError("abort returned")

    async def _admitted(self, call: Call, context: Any, scope: Scope) -> Caller:
        """Raises Unauthenticated, Forbidden, TooMany."""
        if self._gate.is_open:
            return EVERYBODY
        sent = authorization(context.invocation_metadata())
        caller = await self._gate.caller(sent, _address(context.peer()))
        call.by(caller.owner, caller.token)
        self._gate.admit(caller, scope)
        return caller

    async def _change(self, store: Store, method: Method, request: bytes) -> bytes:
        """In threads of its own: one that waits for another process to write keeps no reader
        waiting. Who has gone meanwhile, by a deadline for instance, has changed nothing."""
        gone = threading.Event()
        loop = asyncio.get_running_loop()
        given = (gone, method, store, request)
        try:
            return await loop.run_in_executor(self._writing, carried(_answer_unless), *given)
        except asyncio.CancelledError:
            gone.set()
            raise

    async def _read(self, store: Store, method: Method, key: Key, version: int | None) -> bytes:
        """The answer as of `version` or later. Those who ask the same at the same version, while
        it is being read, wait for one reader."""
        if version is None:
            return await self._in_thread(_answer, method, store, key[1])
        if method.quick:  # a file, whose readers wait for nobody: a thread would cost more
            known = _answer(method, store, key[1])
            self._answers.put(key, version, known)
            return known
        reading = self._reading.get((key, version))
        if reading is None:
            reading = asyncio.ensure_future(self._in_thread(_answer, method, store, key[1]))
            self._reading[key, version] = reading
            reading.add_done_callback(partial(self._was_read, (key, version)))
        known = await asyncio.shield(reading)  # one who is cancelled takes nobody along
        self._answers.put(key, version, known)
        return known

    def _was_read(self, what: tuple[Key, int], reading: asyncio.Future[bytes]) -> None:
        del self._reading[what]
        if not reading.cancelled():
            reading.exception()  # it is no loss if nobody waits for it any more

    async def _watch(self, caller: Caller, request: bytes, context: Any) -> None:
        now = asyncio.get_running_loop().time
        ends = now() + AGE_S
        asked = _decoded(pb.WatchSearchRequest, request)
        if asked.after_sequence < 0:
            said = f"after_sequence: {asked.after_sequence} is negative"
            raise InvalidRequest(said, "after_sequence")
        about(asked)
        id = names.search_id(asked.name)
        if caller.sees is not None:  # the hub sees everything
            await self._in_thread(self._store.seen_by(caller.sees).get_search, id)
        async with aclosing(self.hub.follow(id, asked.after_sequence)) as messages:
            async for message in messages:
                await self._gate.again(caller)
                await context.write(message)
                self._calls.metrics.sent(len(message))
                if now() > ends:
                    raise Stopping("this watch is old; begin another where it ends")

    def _check_serving(self) -> None:
        """Raises Stopping."""
        if self._stopping:
            raise Stopping("the server is stopping; call again")

    async def _in_thread(self, call: Callable[..., T], *given: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, carried(call), *given)

    def stop(self) -> None:
        """Refuses what is new; whoever watches is sent away."""
        self._stopping = True
        self.hub.stop()

    def close(self) -> None:
        self._threads.shutdown()
        self._writing.shutdown()


def _key(method: str, caller: Caller) -> str:
    """Who sees other searches has other answers."""
    return method if caller.sees is None else f"{method} of {caller.sees}"


def _address(peer: str) -> str:
    """Of a peer, without its port."""
    return peer.rpartition(":")[0]


async def _received(messages: AsyncIterator[bytes]) -> bytes:
    """The one message of a call. Raises InvalidRequest, TooLate."""
    try:
        async with asyncio.timeout(LONGEST_S):
            async for message in messages:
                return message
    except TimeoutError:
        raise TooLate(f"no message has come within {LONGEST_S:g} s") from None
    raise InvalidRequest("the call came without a message")


@asynccontextmanager
async def _in_time(context: Any) -> AsyncIterator[None]:
    """A call that has no deadline of its own. Raises TooLate."""
    if context.time_remaining() is not None:
        yield
        return
    try:
        async with asyncio.timeout(LONGEST_S):
            yield
    except TimeoutError:
        raise TooLate(f"a call may take {LONGEST_S:g} s") from None


def _answer(method: Method, store: Store, request: bytes) -> bytes:
    asked = _decoded(method.request, request)
    about(asked)
    answer = method.handler(store, asked)
    if not method.reads:
        about(answer)  # what it has made
    return answer.SerializeToString()


def _answer_unless(gone: threading.Event, method: Method, store: Store, request: bytes) -> bytes:
    with store.unless(gone.is_set):
        return _answer(method, store, request)


def _decoded(kind: Any, request: bytes) -> Any:
    """Raises InvalidRequest for bytes that are no such message."""
    try:
        return kind.FromString(request)
    except DecodeError:
        raise InvalidRequest(f"these bytes are no {kind.DESCRIPTOR.name}") from None
