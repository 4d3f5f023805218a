"""Who looks at a page: a session's cookie, or a token with the request, as gRPC takes it.

A form takes a token once and gives a random session for it, of which the store keeps a hash: it
outlives the server, and ends with its token. The token itself is in no URL, page, cookie or log.
It must not know what is shown. Next: `../access.py`, what a token is; `app.py`.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from typing import Protocol
from urllib.parse import parse_qs, quote

from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response

from ..access import EVERYBODY, Caller
from ..errors import Unauthenticated

SESSION_S = 12 * 3600
TRIES, WITHIN_S = 10, 60.0  # tokens of one peer
PEERS = 1024  # that are remembered
HOME = "/searches"
_OURS = re.compile(r"/(searches|architectures)(/[\w:.-]+)*(\?[\w%&=.:+*~-]*)?", re.ASCII)


class Access(Protocol):
    """The part of the store that knows tokens and sessions. Raises Unauthenticated."""

    def caller_of(self, text: str) -> Caller: ...

    def open_session(self, caller: Caller, seconds: float) -> str: ...

    def caller_of_session(self, secret: str) -> Caller: ...

    def close_session(self, secret: str) -> None: ...


class Door:
    """Lets callers in; `access` None: everybody, and nobody is asked for a token. What counts tries
    is for one event loop, what blocks is for threads."""

    def __init__(self, access: Access | None, secure: bool) -> None:
        self._access, self.secure = access, secure
        # a browser takes this prefix only over TLS, for the whole host, from the host itself
        self.cookie = "__Host-formwright" if secure else "formwright"
        self._tries: OrderedDict[str, list[float]] = OrderedDict()

    @property
    def is_open(self) -> bool:
        return self._access is None

    def caller(self, request: HTTPConnection) -> Caller:
        """Blocks. Raises Unauthenticated."""
        if self._access is None:
            return EVERYBODY
        if text := bearer(request):
            return self._access.caller_of(text)
        secret = request.cookies.get(self.cookie, "")
        if not secret:
            raise Unauthenticated("log in first")
        return self._access.caller_of_session(secret)

    def enter(self, token: str) -> str:
        """The secret of a new session. Blocks. Raises Unauthenticated."""
        if self._access is None:
            raise Unauthenticated("no token is asked for here")
        return self._access.open_session(self._access.caller_of(token), SESSION_S)

    def leave(self, request: HTTPConnection) -> None:
        """Ends the session. Blocks."""
        secret = request.cookies.get(self.cookie, "")
        if self._access is not None and secret:
            self._access.close_session(secret)

    def may_try(self, peer: str) -> bool:
        """Whether a token from this peer is looked at now."""
        return len(self._recent(peer)) < TRIES

    def tried(self, peer: str) -> None:
        """This peer has shown a token that is none, or has asked for a session."""
        self._tries[peer] = [*self._recent(peer), asyncio.get_running_loop().time()]
        self._tries.move_to_end(peer)
        while len(self._tries) > PEERS:
            self._tries.popitem(last=False)

    def _recent(self, peer: str) -> list[float]:
        now = asyncio.get_running_loop().time()
        return [at for at in self._tries.get(peer, ()) if now - at < WITHIN_S]

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
