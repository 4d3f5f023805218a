"""The server: settings -> port -> store -> servicer, and a scheduler beside it.

It never imports ray: searches run in the scheduler's process, and both meet in the store only.
Next: `host.py` for what it answers, `web/` for what it shows, `supervisor.py` for the scheduler.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import grpc

from ..extras import needs
from .errors import SetupError
from .exposure import exposure, why_taken
from .gate import Gate
from .host import Host
from .limits import Limits
from .settings import Settings
from .store import Store, open_store
from .supervisor import Supervisor
from .tls import server_credentials

if TYPE_CHECKING:
    from .web.site import WebSite


async def serve(
    settings: Settings, ready: Callable[[str], None], shows: Callable[[str], None] | None = None
) -> None:
    """Serves until SIGINT or SIGTERM; `ready` is told the address once requests are answered, and
    `shows` that of the page for browsers, if there is one.

    Raises SetupError if the port is taken, the database or the certificate cannot be used, or other
    machines would reach it without protection; nothing is written then.
    """
    wanted = exposure(
        settings.host, settings.certificate, settings.key, settings.client_ca, settings.tokens
    )
    tls = (settings.certificate, settings.key, settings.client_ca)
    credentials = server_credentials(*tls) if wanted.tls else None
    _check_free(settings.host, settings.port)
    page = _page(settings)
    store = open_store(settings.database)
    gates = [_gate(settings, store, wanted.tokens)]
    host, supervisor = Host(store, gates[0]), Supervisor(settings, store)
    host.metrics.follow("formwright_scheduler_restarts_total", lambda: supervisor.restarts)
    parts: list[asyncio.Future[None]] = []
    try:
        port = _listen(host.server, settings.host, settings.port, credentials)
        await host.start()
        stopping = _on_signals()
        if settings.with_parent:
            _on_end_of_input(stopping)
        if page is not None:
            if page.needs.tokens is not wanted.tokens:  # each by its own address
                gates.append(_gate(settings, store, page.needs.tokens))
            page.show(store, gates[-1], host.hub, host.metrics.render)
            parts.append(asyncio.ensure_future(page.run()))
        parts += [asyncio.ensure_future(part) for part in (host.run(), supervisor.run())]
        ready(f"{bracketed(settings.host)}:{port}")
        if page is not None and shows is not None:
            shows(page.address)
        await _first(stopping, parts)
    finally:
        supervisor.stop()
        if page is not None:
            page.stop()
        await host.stop()
        ended = await asyncio.gather(*parts, return_exceptions=True)
        for gate in gates:
            await asyncio.to_thread(gate.close)
        store.close()
    for error in ended:
        if isinstance(error, BaseException):
            raise error


async def _first(stopping: asyncio.Event, parts: Iterable[asyncio.Future[None]]) -> None:
    """Until it is to stop, or one part has failed."""
    stopped = asyncio.ensure_future(stopping.wait())
    running = asyncio.gather(*parts)
    waited: set[asyncio.Future[Any]] = {stopped, running}
    try:
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        if running.done():
            running.exception()  # which is raised once all has ended


def _gate(settings: Settings, store: Store, asks: bool) -> Gate:
    """One that asks for tokens, or lets everybody in."""
    if not asks:
        return Gate()
    return Gate(store.access, Limits(settings.rate, settings.at_once))


def _page(settings: Settings) -> WebSite | None:
    """At its port already. Raises SetupError, MissingExtraError."""
    if not settings.web:
        return None
    with needs("service", "--web"):
        from .web.site import WebSite  # a server without a page is up sooner
    return WebSite(settings)


def _check_free(host: str, port: int) -> None:
    """Raises SetupError if nobody can listen there. gRPC would say the same later, and log about
    it; a database must not be touched by a server that cannot serve."""
    if (error := why_taken(host, port)) is not None:
        raise _cannot_listen(host, port, error) from error


def _listen(
    server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None
) -> int:
    """The port it listens on. Raises SetupError if somebody was faster."""
    address = f"{bracketed(host)}:{port}"
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise _cannot_listen(host, port, error) from error


def _cannot_listen(host: str, port: int, error: Exception) -> SetupError:
    taken = getattr(error, "errno", errno.EADDRINUSE) == errno.EADDRINUSE
    hint = "is another server running there? Try another --port" if taken else "see --host"
    return SetupError(f"cannot listen on {host}:{port}: {error}; {hint}")


def bracketed(host: str) -> str:
    """A host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def _on_end_of_input(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def wait() -> None:
        # not by `sys.stdin`: its lock, held by a thread that waits, aborts an interpreter that ends
        while os.read(sys.stdin.fileno(), 4096):
            pass
        with contextlib.suppress(RuntimeError):  # the loop has ended before its parent did
            loop.call_soon_threadsafe(stopping.set)

    threading.Thread(target=wait, daemon=True).start()


def _on_signals() -> asyncio.Event:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    return stopping
