"""The server: settings -> port -> store -> servicer, and a scheduler beside it.

It never imports ray: searches run in the scheduler's process, and both meet in the store only.
Next: `servicer.py` for the methods, `supervisor.py` for the scheduler.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable

import grpc

from .errors import SetupError
from .servicer import Servicer
from .settings import Settings
from .store import open_store
from .supervisor import Supervisor
from .wire import search_pb2_grpc as pb_grpc

log = logging.getLogger("formwright.service")

DRAIN_S = 5.0  # how long calls in flight may take once the server stops
OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),  # watchers may keep alive
    ("grpc.keepalive_permit_without_calls", 1),
)


async def serve(settings: Settings, ready: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM; `ready` is told the address once requests are answered.

    Raises SetupError if the port is taken or the database cannot be used; nothing is written then.
    """
    server = grpc.aio.server(options=OPTIONS)
    port = _listen(server, settings.host, settings.port)
    store = open_store(settings.database)
    servicer, supervisor = Servicer(store), Supervisor(settings, store)
    pb_grpc.add_SearchServiceServicer_to_server(servicer, server)
    await server.start()
    supervising = asyncio.ensure_future(supervisor.run())
    stopping = _on_signals()
    if settings.with_parent:
        _on_end_of_input(stopping)
    ready(f"{bracketed(settings.host)}:{port}")
    try:
        await stopping.wait()
    finally:
        servicer.stop()
        supervisor.stop()
        await server.stop(DRAIN_S)
        await supervising
        servicer.close()
        store.close()


def _listen(server: grpc.aio.Server, host: str, port: int) -> int:
    """The port it listens on. Raises SetupError if that cannot be."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:  # gRPC would say the same, and log about it
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        return server.add_insecure_port(f"{bracketed(host)}:{port}")
    except (OSError, RuntimeError) as error:
        taken = getattr(error, "errno", errno.EADDRINUSE) == errno.EADDRINUSE
        hint = "is another server running there? Try another --port" if taken else "see --host"
        raise SetupError(f"cannot listen on {host}:{port}: {error}; {hint}") from error


def bracketed(host: str) -> str:
    """A host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def _on_end_of_input(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def wait() -> None:
        sys.stdin.buffer.read()
        with contextlib.suppress(RuntimeError):  # the loop has ended before its parent did
            loop.call_soon_threadsafe(stopping.set)

    threading.Thread(target=wait, daemon=True).start()


def _on_signals() -> asyncio.Event:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    return stopping
