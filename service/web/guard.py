"""What holds for every request before anybody looks at it, and for every answer after.

Hosts against DNS rebinding, the size of what is sent, and the headers that tell a browser to take
nothing from elsewhere. It must not know what is asked for. Next: `login.py`, who asks.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..access import is_loopback

LONGEST_BODY = 4096  # bytes; a form with a token has a hundred
LONGEST_HEAD = 16 << 10  # bytes of a request's line and headers
CLOSE = {"connection": "close"}
YEAR_S = 365 * 24 * 3600

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # plotly places its parts by style attributes
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


class Guard:
    """The application behind it sees only what passed. `local` is whether the server listens on
    this machine alone: then a name that another's DNS has pointed here is refused."""

    def __init__(self, app: ASGIApp, *, local: bool, secure: bool) -> None:
        self._app, self._local, self._secure = app, local, secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":  # that the server begins, and ends
            await self._app(scope, receive, send)
        if scope["type"] != "http":  # no websockets here
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if self._secure:
                    headers["strict-transport-security"] = f"max-age={YEAR_S}"
            await send(message)

        refused = self._refused(Request(scope))
        await (refused or self._app)(scope, receive, sent)

    def _refused(self, request: Request) -> PlainTextResponse | None:
        line = len(request.scope["raw_path"]) + len(request.scope["query_string"])
        sizes = (len(name) + len(value) for name, value in request.scope["headers"])
        if line + sum(sizes) > LONGEST_HEAD:
            return PlainTextResponse("too many headers, or too long\n", 431, CLOSE)
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not host_of(hosts[0]):
            return PlainTextResponse("one Host header, please\n", 400)
        if self._local and not is_loopback(host_of(hosts[0])):
            said = "this page is for this machine: open it as localhost or 127.0.0.1\n"
            return PlainTextResponse(said, 421)
        length = request.headers.get("content-length", "0")
        chunked = "transfer-encoding" in request.headers
        if chunked or not re.fullmatch("[0-9]{1,9}", length) or int(length) > LONGEST_BODY:
            return PlainTextResponse(f"longer than {LONGEST_BODY} bytes\n", 413, CLOSE)
        return None


def host_of(given: str) -> str:
    """A Host header without its port; empty where it is none.

    >>> host_of("localhost:80"), host_of("[::1]:80"), host_of("me@there"), host_of("a b")
    ('localhost', '[::1]', '', '')
    """
    try:
        split = urlsplit(f"//{given}")
        name, _ = split.hostname or "", split.port
    except ValueError:
        return ""
    if split.path or split.query or split.fragment or "@" in given or not given.isascii():
        return ""
    if any(not c.isprintable() or c.isspace() for c in given):
        return ""
    return f"[{name}]" if ":" in name else name


def is_same_origin(request: Request, sure: bool) -> bool:
    """Whether our own page has sent this form. A browser says so itself; where it does not (over
    plain HTTP from another machine), Origin does, and `sure` wants one of both."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin", "null")
    if origin == "null":
        return not sure
    return origin.partition("://")[2].lower() == request.headers.get("host", "").lower()
