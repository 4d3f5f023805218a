"""The page as a part of a server: its socket, and uvicorn in the loop that runs already.

No signals, no log of who looks at what; what a stranger may cost is bounded. It must not know what
is shown. Next: `app.py`, what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..access import is_loopback
from ..errors import SetupError
from ..exposure import exposure
from ..settings import Settings
from ..store import Store
from ..tls import server_context
from ..watch import Hub
from .app import Numbers, make_app
from .guard import LONGEST_HEAD

CONNECTIONS = 256  # at once; one more is told so
HEAD_S = 10.0  # in which a connection must have sent a whole head
IDLE_S = 30  # between two requests of a connection
DRAIN_S = 3  # in which answers may end once the server stops
BACKLOG = 128
LOOK_S = 60.0  # between two looks at the files of the certificate

log = logging.getLogger("formwright.service")


class _Protocol(H11Protocol):
    """Hangs up on whoever connects, and says nothing or says it slowly."""

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._due = self.loop.call_later(HEAD_S, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._due is not None:
            self._due.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        waited = self.cycle is None or self.cycle.response_complete
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            if self._due is not None:
                self._due.cancel()
            self._due = None
        elif waited and self._due is None:  # the first bytes of the next head
            self._due = self.loop.call_later(HEAD_S, self._too_slow)

    def _too_slow(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they are for the whole server


def listen(host: str, port: int) -> socket.socket:
    """The page's socket, before anything else is done. Raises SetupError if the port is taken."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SetupError(
            f"cannot show the page on {host}:{port}: {error.strerror or error}; try another --web"
        ) from error
    made.setblocking(False)
    return made


def read_place(given: str, host: str) -> tuple[str, int]:
    """Where the page is to be: `PORT` on the server's `host`, or `HOST:PORT`. Raises SetupError.

    >>> read_place("0", "127.0.0.1"), read_place("[::1]:8080", "127.0.0.1")
    (('127.0.0.1', 0), ('::1', 8080))
    """
    named, _, port = given.rpartition(":")
    if not port.isdecimal() or int(port) > 65535 or (":" in named) != named.startswith("["):
        raise SetupError(f"--web: wanted PORT or HOST:PORT, got {given!r}")
    return named.strip("[]") or host, int(port)


class WebSite:
    """Made before the store is opened: it holds its port, or says that it cannot. Then `show` what
    there is, and `run()` until `stop()`, all in one loop. The rules of who may reach it how are
    those of gRPC, at its own address. Raises SetupError."""

    def __init__(self, settings: Settings) -> None:
        host, port = read_place(settings.web, settings.host)
        self._files = (settings.certificate, settings.key, settings.client_ca)
        self.needs = exposure(host, *self._files, settings.tokens)
        self._context = server_context(*self._files) if self.needs.tls else None
        self._local = is_loopback(host)
        self._socket = listen(host, port)
        self._server: _Server | None = None

    @property
    def address(self) -> str:
        """As a browser opens it."""
        host, port = self._socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"http{'s' if self.needs.tls else ''}://{shown}:{port}"

    def show(self, store: Store, hub: Hub, numbers: Numbers | None = None) -> None:
        """What `run` serves."""
        app = make_app(
            store,
            store.access if self.needs.tokens else None,
            hub,
            self.needs.tls,
            local=self._local,
            numbers=numbers,
        )
        context = self._context
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            loop="none",
            lifespan="on",
            interface="asgi3",
            log_config=None,
            log_level=logging.CRITICAL,  # strangers can have it write at will
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            h11_max_incomplete_event_size=LONGEST_HEAD,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=DRAIN_S,
            backlog=BACKLOG,
            ssl_context_factory=None if context is None else lambda *_: context,
        )
        self._server = _Server(config)

    async def run(self) -> None:
        """Answers until it is stopped; those that it has begun may end."""
        if self._server is None:
            raise RuntimeError("nothing is shown")
        renewing = asyncio.ensure_future(self._renew())
        try:
            await self._server.serve([self._socket])
        finally:
            renewing.cancel()
            self._socket.close()

    def stop(self) -> None:
        """Streams have been ended, or are about to be; in the end they are cut off."""
        if self._server is not None:
            self._server.should_exit = True

    async def _renew(self) -> None:
        """A certificate that is renewed needs no restart; one that cannot be used changes
        nothing."""
        seen = self._stamp()
        while self._context is not None:
            await asyncio.sleep(LOOK_S)
            stamp = self._stamp()
            if stamp == seen:
                continue
            seen = stamp
            try:
                server_context(*self._files)
                self._context.load_cert_chain(*self._files[:2], password=lambda: "")
            except (SetupError, OSError) as error:
                log.warning("the page's certificate is not renewed: %s", error)

    def _stamp(self) -> list[int]:
        try:
            return [Path(path).stat().st_mtime_ns for path in self._files if path]
        except OSError:  # one is being replaced
            return []
