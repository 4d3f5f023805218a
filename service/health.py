"""Standard health (`grpc.health.v1`): a status by the name of a service, asked for or watched.

The package of that name has the messages; its servicer would hold a lock while it writes, so that
one who reads slowly keeps all others, and the end of the server, waiting. Anybody may ask: names
and watchers are bounded. Next: `host.py`, which knows how we are.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from .calls import CHECK, Calls
from .metrics import Metrics

WATCHERS = 100
LONGEST = 100  # of a name
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health(health_pb2_grpc.HealthServicer):
    """Made and used in one event loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._calls = Calls(metrics)
        self._statuses: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._stopping = False
        self._watchers = 0

    def set(self, name: str, status: int) -> None:
        """From now on; nothing once it stops."""
        if not self._stopping:
            self._statuses[name] = status
            self._tell()

    def stop(self) -> None:
        """Everything is NOT_SERVING; who watches hears so, and is sent away."""
        self._statuses = dict.fromkeys(self._statuses, NOT_SERVING)
        self._stopping = True
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(self, request: Any, context: Any) -> Any:
        with self._calls.of(CHECK):
            status = self._statuses.get(request.service)
            if status is None:
                await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
            return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: Any, context: Any) -> None:
        if len(request.service) > LONGEST:
            said = f"the name of a service has at most {LONGEST} characters"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, said)
        if self._watchers >= WATCHERS:
            said = f"{WATCHERS} watch the health of this server already"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, said)
        self._watchers += 1
        try:
            await self._follow(request.service, context)
        finally:
            self._watchers -= 1

    async def _follow(self, name: str, context: Any) -> None:
        told = None
        while True:
            changed, ends = self._changed, self._stopping  # before we wait: it may change meanwhile
            status = self._statuses.get(name, SERVICE_UNKNOWN)
            if status != told:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                told = status
            if ends:
                return
            await changed.wait()
