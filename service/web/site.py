"""The page as a part of a server: its socket, and uvicorn in the loop that runs already.

No signals, no log of who looks at what; what a stranger may cost is bounded. It must not know what
is shown. Next: `app.py`, what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from ..access import is_loopback
from ..errors import SetupError
from ..exposure import exposure
from ..gate import Gate
from ..settings import Settings
from ..store import Store
from ..tls import server_context, stamp_of
from ..watch import Hub
from .app import Numbers, make_app
from .guard import LONGEST_HEAD

CONNECTIONS = 256  # at once; one more is told so
HELD = CONNECTIONS + 16  # of these: more are hung up on at once
HEAD_S = 10.0  # in which a connection must have shaken hands, and have sent a whole request
ANSWER_S = 120.0  # in which an answer must be there, and have been read
STALLED_S = 20.0  # in which who reads an answer must have read some of it
STREAM = "/live"  # the end of the addresses of what has no end
TICKS = 10  # of 0.1 s, between two looks at all connections
IDLE_S = 30  # between two requests of a connection
DRAIN_S = 3  # in which answers may end once the server stops
BACKLOG = 128
LOOK_S = 60.0  # between two looks at the files of the certificate

log = logging.getLogger("formwright.service")


class _Connection(H11Protocol):
    """Bounded in all that a stranger can draw out: a request comes within `HEAD_S`, its answer is
    there and read within `ANSWER_S` (but of a stream), and whoever reads does not stop."""

    _asking: float | None = None  # since when a request has been coming
    _answering: float | None = None  # since when there is one that has come
    _answered: RequestResponseCycle | None = None  # the last that has begun
    _unsent, _moved = 0, 0.0  # bytes; when they were last seen to become fewer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._asking = self._moved = self.loop.time()

    def data_received(self, data: bytes) -> None:
        if self._asking is None and self._is_done:
            self._asking = self.loop.time()
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        self._asking = None
        super().on_response_complete()  # begins with the next one, if that is here
        self._look()

    @property
    def _is_done(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _look(self) -> None:
        if self.cycle is not self._answered:
            self._answered, self._answering = self.cycle, self.loop.time()
        if not self._is_done and not self.cycle.more_body:
            self._asking = None

    def is_overdue(self, now: float) -> bool:
        """Asked about once a second."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent < self._unsent:
            self._moved = now
        self._unsent = unsent
        if self._is_done and not unsent:
            self._answering = None
        if self._asking is not None and now - self._asking > HEAD_S:
            return True
        if now - self._moved > STALLED_S:
            return True
        stream = not self._is_done and self.scope["path"].endswith(STREAM)
        return self._answering is not None and not stream and now - self._answering > ANSWER_S


class _Socket(socket.socket):
    """One that listens, and holds no more than `HELD` connections: they are counted here, since
    over TLS nobody else knows of them before they have shaken hands."""

    _held: list[socket.socket]

    def accept(self) -> tuple[socket.socket, Any]:
        made, address = super().accept()
        held = [each for each in getattr(self, "_held", ()) if each.fileno() >= 0]
        if len(held) < HELD:
            held.append(made)
        else:
            made.close()
        self._held = held
        if made.fileno() < 0:
            raise BlockingIOError("enough")  # nobody is there
        return made, address


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they are for the whole server

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does, but TLS has its times too."""
        await self.lifespan.startup()
        config, state = self.config, self.server_state
        secure = config.ssl is not None

        def made() -> _Connection:
            return _Connection(config, state, self.lifespan.state)

        self.servers = [
            await asyncio.get_running_loop().create_server(
                made,
                sock=each,
                ssl=config.ssl,
                backlog=config.backlog,
                ssl_handshake_timeout=HEAD_S if secure else None,
                ssl_shutdown_timeout=STALLED_S if secure else None,
            )
            for each in sockets or ()
        ]
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS == 0:
            now = asyncio.get_running_loop().time()
            self._hang_up(lambda each: each.is_overdue(now))
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        self._hang_up(lambda _: True)  # they had their time

    def _hang_up(self, whether: Callable[[_Connection], bool]) -> None:
        for each in list(self.server_state.connections):
            if isinstance(each, _Connection) and whether(each):
                each.transport.abort()


def listen(host: str, port: int) -> socket.socket:
    """The page's socket, before anything else is done. Raises SetupError if the port is taken."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SetupError(
            f"cannot show the page on {host}:{port}: {error.strerror or error}; try another --web"
        ) from error
    found = _Socket(family, fileno=made.detach())
    found.setblocking(False)
    return found


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
        self._seen = stamp_of(*self._files)  # before they are read
        self._context = server_context(*self._files) if self.needs.tls else None
        self._newest: ssl.SSLContext | None = None
        if self._context is not None:
            self._context.sni_callback = self._renewed
        self._local = is_loopback(host)
        self._socket = listen(host, port)
        self._server: _Server | None = None

    @property
    def address(self) -> str:
        """As a browser opens it."""
        host, port = self._socket.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        return f"http{'s' if self.needs.tls else ''}://{shown}:{port}"

    def show(self, store: Store, gate: Gate, hub: Hub, numbers: Numbers | None = None) -> None:
        """What `run` serves, to whom the gate lets in: one that asks for tokens if it `needs`."""
        app = make_app(
            store,
            gate,
            hub,
            self.needs.tls,
            local=self._local,
            numbers=numbers,
        )
        context = self._context
        config = uvicorn.Config(
            app,
            http=_Connection,
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
        while self._context is not None:
            await asyncio.sleep(LOOK_S)
            stamp = stamp_of(*self._files)
            if stamp == self._seen:
                continue
            self._seen = stamp
            try:
                self._newest = server_context(*self._files)
            except (SetupError, OSError) as error:
                log.warning("the page's certificate is not renewed: %s", error)

    def _renewed(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """Before the certificate is shown: a context is taken as a whole, or not at all."""
        if self._newest is not None:
            connection.context = self._newest
