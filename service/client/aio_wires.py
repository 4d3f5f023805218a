"""Who answers an `AsyncClient`: a server, or a database in threads.

Next: `remote.py` and `local.py`, the same for `Client`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Protocol

import grpc

from ...errors import FormwrightError
from ..wire import search_pb2_grpc as pb_grpc
from .remote import OPTIONS, RETRIES_S, Wire, check_open, exception_of, may_repeat
from .trust import Trust


class AsyncWire(Protocol):
    """See `Wire`."""

    server: str
    closed: bool

    async def unary(self, method: str, request: Any) -> Any: ...

    def stream(self, method: str, request: Any) -> AsyncGenerator[Any, None]: ...

    async def close(self) -> None: ...


class AsyncRemote:
    """A channel to one server."""

    def __init__(self, server: str, timeout_s: float, trust: Trust) -> None:
        self.server, self._timeout_s, self.closed = server, timeout_s, False
        self._trust, self._metadata = trust, trust.metadata()
        self._channel = trust.channel(server, OPTIONS, grpc.aio)
        self._stub: Any = pb_grpc.SearchServiceStub(self._channel)
        self._streams: set[Any] = set()

    async def unary(self, method: str, request: Any) -> Any:
        check_open(self)
        now = asyncio.get_running_loop().time
        until = now() + self._timeout_s
        for pause in (*RETRIES_S, None):
            try:
                call = getattr(self._stub, method)
                left = max(0.0, until - now())
                return await call(request, timeout=left, metadata=self._metadata)
            except asyncio.CancelledError:
                self._check_cancelled()
                raise
            except grpc.RpcError as error:
                again = may_repeat(error) and pause is not None and not self.closed
                if not again or now() + (pause or 0) > until:
                    raise await self._exception(error) from None
                await asyncio.sleep(pause or 0)
        raise AssertionError("the last one raises")

    async def stream(self, method: str, request: Any) -> AsyncGenerator[Any, None]:
        check_open(self)
        call = getattr(self._stub, method)(request, metadata=self._metadata)
        self._streams.add(call)
        try:
            async for message in call:
                yield message
        except asyncio.CancelledError:
            self._check_cancelled()
            raise
        except grpc.RpcError as error:
            raise await self._exception(error) from None
        finally:
            self._streams.discard(call)
            call.cancel()

    async def _exception(self, error: grpc.RpcError) -> FormwrightError:
        return await asyncio.to_thread(exception_of, error, self.server, self._trust)

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
