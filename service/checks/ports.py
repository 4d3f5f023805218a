"""The ports that a server here would take: free, taken by a server of ours, or by something else.

It must not know settings of clients. Next: `wire.py`, what a port speaks; `../probe.py`.
"""

from __future__ import annotations

import errno
import http.client
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from ...extras import MissingExtraError, needs
from ..exposure import why_taken
from ..handshake import Speaks, host_and_port, listen, trusting_all
from .finding import Finding, failed, ok, warning, wrong
from .look import Look

CLOCK_S = 2.0  # a page tells the time in whole seconds
LOW = 1024


def of_port(look: Look) -> Iterator[Finding]:
    """The port of gRPC."""
    host, port = look.text("host"), int(look.value("port").value)
    if port == 0:
        yield ok("port", "a free one is taken")
        return
    found = why_taken(host, port)
    if found is None:
        yield ok("port", f"{host}:{port} is free")
        return
    other = look.variable("port", "PORT")
    named = look.named("port") or look.named("host")
    if found.errno != errno.EADDRINUSE:
        yield _not_ours("port", host, port, found, named, look.variable("host", "HOST"))
        return
    here, by = _here(host), _process(port) or "another process"
    said = f"{host}:{port} is taken by {by}"
    if listen(here, port, look.patience_s).speaks is Speaks.TLS:
        yield ok("port", f"{said}, which speaks TLS")  # ours, perhaps; `of_server` knows better
    elif _is_server(here, port, look.patience_s):
        yield ok("port", f"{host}:{port}: a server listens there already")
    else:
        yield wrong("port", named, f"{said}, no server of ours", f"end it, or {other}")


def of_web(look: Look) -> Iterator[Finding]:
    """The port of the page, where one is wanted."""
    given = look.text("web")
    if not given:
        return
    host, port = host_and_port(given if ":" in given else f"{look.text('host')}:{given}")
    if port == 0:
        yield ok("web port", "a free one is taken")
        return
    found = why_taken(host, port)
    other = look.variable("web", "PORT")
    if found is None:
        yield ok("web port", f"{host}:{port} is free")
    elif found.errno != errno.EADDRINUSE:
        yield _not_ours("web port", host, port, found, True, look.variable("web", "HOST:PORT"))
    else:
        yield from _of_page(look, host, port, other)


def _of_page(look: Look, host: str, port: int, other: str) -> Iterator[Finding]:
    status, date = _answer(_here(host), port, look)
    if status not in (200, 503):
        by = _process(port) or "another process"
        said = f"{host}:{port} is taken by {by}, which is no page of ours"
        yield wrong("web port", True, said, f"end it, or {other}")
        return
    if status == 503:
        said = f"{host}:{port}: the page says that the database does not answer"
        yield failed("web port", said, "see what is said of the database; formwright doctor there")
    else:
        yield ok("web port", f"{host}:{port}: a page is served there already")
    ahead = (date - look.clock()).total_seconds() if date else 0.0
    if abs(ahead) > CLOCK_S:
        said = f"the page's clock differs from ours by {abs(ahead):.0f} s"
        yield warning("clock", said, "timedatectl set-ntp true, on both machines")


def _answer(host: str, port: int, look: Look) -> tuple[int, datetime | None]:
    """What a page says of its health, and what time it is there; 0 where nobody speaks HTTP."""
    limit_s = look.patience_s
    connection = http.client.HTTPConnection(host, port, timeout=limit_s)
    if listen(host, port, limit_s).speaks is Speaks.TLS:
        connection = http.client.HTTPSConnection(
            host, port, timeout=limit_s, context=trusting_all()
        )
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        date = parsedate_to_datetime(answer.headers["Date"])
    except (OSError, http.client.HTTPException):
        return 0, None
    except (TypeError, ValueError):  # an answer without a date
        return answer.status, None
    finally:
        connection.close()
    return answer.status, date if date.tzinfo else date.replace(tzinfo=UTC)


def _not_ours(name: str, host: str, port: int, error: OSError, named: bool, other: str) -> Finding:
    """An address that this user cannot take."""
    remedy = f"an address of this machine (ip address): {other}"
    if error.errno == errno.EACCES:
        remedy = f"a port from {LOW} on, or a proxy before it"
    return wrong(name, named, f"cannot listen on {host}:{port}: {error.strerror}", remedy)


def _here(host: str) -> str:
    """Where this machine reaches who listens on that host."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _is_server(host: str, port: int, limit_s: float) -> bool:
    """Whether it says so, without TLS."""
    try:
        with needs("client", "a client"):
            from ..probe import probe
    except MissingExtraError:
        return False
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return not isinstance(probe(address, limit_s), str)


def _process(port: int) -> str:
    """Who listens there, where this user may know."""
    with suppress(Exception):  # psutil is not there, or may not look
        import psutil

        for found in psutil.net_connections("tcp"):
            here: Any = found.laddr
            if found.status == psutil.CONN_LISTEN and here.port == port and found.pid:
                return f"{psutil.Process(found.pid).name()} (process {found.pid})"
    return ""
