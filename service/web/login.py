"""Who looks at a page: a session's cookie, or a token with the request, as gRPC takes it.

A form takes a token once and gives a random session for it, of which the store keeps a hash: it
outlives the server, and ends with its token. The token itself is in no URL, page, cookie or log.
It must not know what is shown. Next: `../gate.py`, which knows the callers; `app.py`.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, quote

from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response

from ..access import Caller, Scope
from ..gate import BEARER, Gate

SESSION_S = 12 * 3600
HOME = "/searches"
_OURS = re.compile(r"/(searches|architectures)(/[\w:.-]+)*(\?[\w%&=.:+*~-]*)?", re.ASCII)


class Door:
    """Asks the gate who a browser is, or a program that sends a token."""

    def __init__(self, gate: Gate, secure: bool) -> None:
        self._gate, self.secure = gate, secure
        # a browser takes this prefix only over TLS, for the whole host, from the host itself
        self.cookie = "__Host-formwright" if secure else "formwright"

    @property
    def is_open(self) -> bool:
        """Nobody is asked for a token."""
        return self._gate.is_open

    async def caller(self, request: HTTPConnection) -> Caller:
        """Counts a call. Raises Unauthenticated, TooMany."""
        peer = peer_of(request)
        if bearer(request):
            caller = await self._gate.caller(request.headers["authorization"], peer)
        else:
            caller = await self._gate.of_session(request.cookies.get(self.cookie, ""), peer)
        self._gate.admit(caller, Scope.READ)
        return caller

    async def enter(self, token: str, peer: str) -> str:
        """The secret of a new session. Raises Unauthenticated, TooMany."""
        caller = await self._gate.caller(BEARER + token, peer)
        self._gate.admit(caller, Scope.READ)
        return await self._gate.open_session(caller, SESSION_S)

    async def leave(self, request: HTTPConnection) -> None:
        """Ends the session. Raises TooMany."""
        await self._gate.close_session(request.cookies.get(self.cookie, ""), peer_of(request))

    def remember(self, answer: Response, secret: str) -> None:
        """Has the browser send the session with each request from now on."""
        answer.set_cookie(
            self.cookie,
            secret,
            max_age=SESSION_S,
            path="/",
            secure=self.secure,
            httponly=True,
            samesite="strict",
        )

    def forget(self, answer: Response) -> None:
        answer.delete_cookie(
            self.cookie, path="/", secure=self.secure, httponly=True, samesite="strict"
        )


def bearer(request: HTTPConnection) -> str:
    """The token that came with a request, as a program sends it."""
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    return text.strip() if kind.lower() == "bearer" else ""


def peer_of(request: HTTPConnection) -> str:
    """The address that asks, without its port."""
    return request.client.host if request.client else ""


def to_login(request: Request) -> Response:
    """The way to the form, and from there back."""
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    ours = f"?next={quote(here, safe='/')}" if way_on(here) == here != HOME else ""
    return RedirectResponse(f"/login{ours}", 303)


def way_on(wanted: str) -> str:
    """Where to go after a login: to a page of ours, whatever was asked for.

    >>> way_on("/searches/0a?state=FAILED"), way_on("//elsewhere.org"), way_on("/login")
    ('/searches/0a?state=FAILED', '/searches', '/searches')
    """
    return wanted if len(wanted) < 2000 and _OURS.fullmatch(wanted) else HOME


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form; nothing for what is none. What is too long was refused before."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if kind != "application/x-www-form-urlencoded":
        return {}
    found = parse_qs(body.decode("latin-1"), max_num_fields=20)
    return {name: values[0] for name, values in found.items()}
