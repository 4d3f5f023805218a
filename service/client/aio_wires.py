"""Who answers an `AsyncClient`: a server, or a database in threads.

Next: `remote.py` and `local.py`, the same for `Client`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Protocol

import grpc

from ..wire import search_pb2_grpc as pb_grpc
from .remote import OPTIONS, RETRIES_S, Wire, check_open, exception_of, is_away


class AsyncWire(Protocol):
    """See `Wire`."""

    server: str
    closed: bool

    async def unary(self, method: str, request: Any) -> Any: ...

    def stream(self, method: str, request: Any) -> AsyncGenerator[Any, None]: ...

    async def close(self) -> None: ...


class AsyncRemote:
    """A channel to one server."""

    def __init__(self, server: str, timeout_s: float) -> None:
        self.server, self._timeout_s, self.closed = server, timeout_s, False
        self._channel = grpc.aio.insecure_channel(server, options=OPTIONS)
        self._stub: Any = pb_grpc.SearchServiceStub(self._channel)
        self._streams: set[Any] = set()

    async def unary(self, method: str, request: Any) -> Any:
        check_open(self)
        now = asyncio.get_running_loop().time
        until = now() + self._timeout_s
        for pause in (*RETRIES_S, None):
            try:
                return await getattr(self._stub, method)(request, timeout=max(0.0, until - now()))
            except asyncio.CancelledError:
                self._check_cancelled()
                raise
            except grpc.RpcError as error:
                again = is_away(error) and pause is not None and not self.closed
                if not again or now() + (pause or 0) > until:
                    raise exception_of(error, self.server) from None
                await asyncio.sleep(pause or 0)
        raise AssertionError("the last one raises")

    async def stream(self, method: str, request: Any) -> AsyncGenerator[Any, None]:
        check_open(self)
        call = getattr(self._stub, method)(request)
        self._streams.add(call)
        try:
            async for message in call:
                yield message
        except asyncio.CancelledError:
            self._check_cancelled()
            raise
        except grpc.RpcError as error:
            raise exception_of(error, self.server) from None
        finally:
            self._streams.discard(call)
            call.cancel()

    def _check_cancelled(self) -> None:
        """Calls that end because the client is closed look like cancelled ones to whoever awaits
        them. Raises Unavailable for these."""
        task = asyncio.current_task()
        if self.closed and task is not None and not task.cancelling():
            check_open(self)

    async def close(self) -> None:
        self.closed = True
        for call in list(self._streams):  # the channel does not find all of them by itself
            call.cancel()
        await self._channel.close()


class AsyncLocal:
    """Each step in a thread."""

    def __init__(self, wire: Wire) -> None:
        self.server, self.closed = wire.server, False
        self._wire = wire

    async def unary(self, method: str, request: Any) -> Any:
        return await asyncio.to_thread(self._wire.unary, method, request)

    async def stream(self, method: str, request: Any) -> AsyncGenerator[Any, None]:
        messages = self._wire.stream(method, request)
        step: asyncio.Future[Any] | None = None
        try:
            while True:
                step = asyncio.ensure_future(asyncio.to_thread(next, messages, None))
                message = await asyncio.shield(step)
                if message is None:
                    return
                yield message
        finally:
            if step is not None:  # a generator that is at work cannot be closed
                await asyncio.wait({step})
            messages.close()

    async def close(self) -> None:
        self.closed = True
        await asyncio.to_thread(self._wire.close)
