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
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import SetupError

PORT = 50580
LONGEST_HEAD = 16 << 10  # bytes of a request's line and headers
CONNECTIONS = 256  # at once; one more is told so
HEAD_S = 10.0  # in which a connection must have sent a whole head
IDLE_S = 30  # between two requests of a connection
DRAIN_S = 3  # in which answers may end once the server stops
BACKLOG = 128

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
    """An application behind a socket that listens. Made in the loop that it runs in: `run()` until
    `stop()`."""

    def __init__(
        self, app: ASGIApp, listening: socket.socket, certificate: str = "", key: str = ""
    ) -> None:
        tls: dict[str, Any] = {}
        if certificate:
            tls = {"ssl_certfile": certificate, "ssl_keyfile": key}
        self._socket = listening
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            loop="none",
            lifespan="on",
            interface="asgi3",
            log_config=None,
            log_level=logging.CRITICAL,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=True,
            limit_concurrency=CONNECTIONS,
            h11_max_incomplete_event_size=LONGEST_HEAD,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=DRAIN_S,
            backlog=BACKLOG,
            **tls,
        )
        try:
            config.load()
        except OSError as error:  # ssl.SSLError is one
            listening.close()
            raise SetupError(f"the certificate or key cannot be used: {error}") from error
        self._server = _Server(config)
        self.secure = bool(certificate)

    @property
    def address(self) -> str:
        """As a browser opens it."""
        host, port = self._socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"http{'s' if self.secure else ''}://{shown}:{port}"

    async def run(self) -> None:
        """Answers until it is stopped; those that it has begun may end."""
        await self._server.serve([self._socket])

    def stop(self) -> None:
        """Streams must have been ended before, or they are cut off."""
        self._server.should_exit = True
