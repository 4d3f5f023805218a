"""Reflection behind the gate: an interceptor for what is not our own service.

Health stays open: a load balancer has no token, and it says no more than SERVING. Our own methods
pass, for `servicer.py` asks the gate itself. Next: `gate.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from .access import Scope
from .errors import ServiceError
from .gate import Gate
from .rpc.methods import SERVICE
from .status import details_of, message_of, row_of

OPEN = (f"/{SERVICE}/", "/grpc.health.v1.Health/")
PEER = "reflection"  # all who send wrong tokens there count as one
AUTHORIZATION = "authorization"


class Guard(grpc.aio.ServerInterceptor):
    """For a server that asks for tokens."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        details: Any = handler_call_details
        if handler is None or details.method.startswith(OPEN):
            return handler
        try:
            sent = authorization(details.invocation_metadata)
            self._gate.admit(await self._gate.caller(sent, PEER), Scope.READ)
        except ServiceError as error:
            return _refusing(handler, error)
        return handler


def authorization(metadata: Any) -> str | None:
    """What was sent as such."""
    for key, value in metadata or ():
        if key == AUTHORIZATION:
            return value if isinstance(value, str) else None
    return None


def _refusing(handler: Any, error: ServiceError) -> Any:
    """A handler of the same kind that says no."""
    row = row_of(error)
    code = grpc.StatusCode.INTERNAL if row is None else row.code
    said = message_of(error)
    details = () if row is None else details_of(error, row, said)

    async def once(_: Any, context: Any) -> None:
        await context.abort(code, said, details)

    async def many(_: Any, context: Any) -> AsyncIterator[bytes]:
        await context.abort(code, said, details)
        yield b""

    kind = "stream" if handler.request_streaming else "unary"
    if handler.response_streaming:
        return getattr(grpc, f"{kind}_stream_rpc_method_handler")(many)
    return getattr(grpc, f"{kind}_unary_rpc_method_handler")(once)
