"""Who answers an `AsyncClient`: a server, or a database in threads.

Next: `remote.py` and `local.py`, the same for `Client`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Protocol

import grpc

from ..wire import search_pb2_grpc as pb_grpc
from .remote import OPTIONS, RETRIES_S, Wire, exception_of, is_away


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

    async def unary(self, method: str, request: Any) -> Any:
        now = asyncio.get_running_loop().time
        until = now() + self._timeout_s
        for pause in (*RETRIES_S, None):
            try:
                return await getattr(self._stub, method)(request, timeout=max(0.0, until - now()))
            except grpc.RpcError as error:
                again = is_away(error) and pause is not None and not self.closed
                if not again or now() + (pause or 0) > until:
                    raise exception_of(error, self.server) from None
                await asyncio.sleep(pause or 0)
        raise AssertionError("the last one raises")

    async def stream(self, method: str, request: Any) -> AsyncGenerator[Any, None]:
        call = getattr(self._stub, method)(request)
        try:
            async for message in call:
                yield message
        except grpc.RpcError as error:
            raise exception_of(error, self.server) from None
        finally:
            call.cancel()

    async def close(self) -> None:
        self.closed = True
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
        try:
            while (message := await asyncio.to_thread(next, messages, None)) is not None:
                yield message
        finally:
            await asyncio.to_thread(messages.close)

    async def close(self) -> None:
        self.closed = True
        await asyncio.to_thread(self._wire.close)
