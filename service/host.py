"""One gRPC server over a store: our methods, standard health and reflection, and how it drains.

It must not know schedulers or signals. Next: `servicer.py`; `server.py`, the whole process.
"""

from __future__ import annotations

import asyncio
import logging

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ..errors import FormwrightError
from .gate import Gate
from .guard import Guard
from .health import Health
from .metrics import Metrics
from .rpc.methods import SERVICE
from .servicer import Servicer
from .store import Store
from .watch import Hub

log = logging.getLogger("formwright.service")

LAME_S = 0.3  # how long new calls are refused before gRPC, which would just cancel them, hangs up
DRAIN_S = 5.0  # how long calls in flight may take once the server stops
PROBE_S = 5.0  # between two looks at the database
OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),  # watchers may keep alive
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 120_000),  # a client that is gone without a word is found out
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.max_metadata_size", 16 << 10),
    # what a stranger may hold open: streams of a connection, connections, and for how long
    ("grpc.max_concurrent_streams", 2_000),
    ("grpc.max_allowed_incoming_connections", 10_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Host:
    """Made in the loop that it serves in. `start`, then `run()` until `stop()`. `metrics` are its
    numbers."""

    def __init__(self, store: Store, gate: Gate | None = None) -> None:
        gate = gate or Gate()
        guards = () if gate.is_open else (Guard(gate),)
        self.server = grpc.aio.server(interceptors=guards, options=OPTIONS)
        self.metrics = Metrics(store.totals)
        self._servicer, self._health = Servicer(store, gate, self.metrics), Health(self.metrics)
        self._store = store
        self._stopping = asyncio.Event()

    @property
    def hub(self) -> Hub:
        """The watches, which end when it stops."""
        return self._servicer.hub

    async def start(self) -> None:
        """Answers from here on; the ports were added to `server` before."""
        self.server.add_generic_rpc_handlers((self._servicer.handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self.server)
        self._tell(True)
        await self.server.start()

    async def run(self) -> None:
        """What goes on beside the calls."""
        await asyncio.gather(self._servicer.hub.run(), self._probe())

    async def _probe(self) -> None:
        """Health is that of the database too."""
        loop, well = asyncio.get_running_loop(), True
        while not self._stopping.is_set():
            try:
                await loop.run_in_executor(None, self._store.ping)
                now = True
            except FormwrightError as error:
                log.warning("%s", error)
                now = False
            if now is not well and not self._stopping.is_set():
                self._tell(now)
                well = now
            try:
                await asyncio.wait_for(self._stopping.wait(), PROBE_S)
            except TimeoutError:
                continue

    def _tell(self, well: bool) -> None:
        for name in ("", SERVICE):
            self._health.set(name, SERVING if well else NOT_SERVING)

    async def stop(self) -> None:
        """NOT_SERVING at once, and watchers are sent away with a bookmark; calls in flight may end;
        new ones are refused, and sent again by clients."""
        self._stopping.set()
        self._health.stop()
        self._servicer.stop()
        await asyncio.sleep(LAME_S)
        await self.server.stop(DRAIN_S)
        await asyncio.get_running_loop().run_in_executor(None, self._servicer.close)
        self.metrics.close()
