"""`make_app`: the table of routes, and how a request becomes a page.

A page is made by a plain function, in a thread: who looks is asked first, then the store as that
one sees it. What is raised on the way becomes a page too, by the table `ERRORS`. It must not know
what is on a page. Next: `pages.py`, `login.py`, `guard.py`; `site.py`, which serves it.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from ..access import Caller
from ..errors import (
    DatabaseError,
    Failed,
    InvalidRequest,
    NotAllowed,
    NotFound,
    Stopping,
    TooMany,
    Unauthenticated,
)
from ..gate import Gate
from ..limits import Limits
from ..store import Store
from ..watch import Hub
from . import live, pages
from .drawings import Drawings
from .files import FILES, answer_file
from .findings import Kept
from .guard import Guard, is_same_origin
from .login import Door, bearer, peer_of, read_form, to_login, way_on
from .render import render
from .threads import Threads

PAGES, FIGURES = 4, 2  # at once; more wait
QUICK = 4  # threads for what is there at once, and must be while those above are at work
STREAMS = 64  # of one token, or of one address where nobody has one
MISSED = 500  # events behind which a page that comes back reads itself anew instead of the events
T = TypeVar("T")
log = logging.getLogger("formwright.service")

# what is raised -> status, what the page says
ERRORS: tuple[tuple[type[Exception], int, str], ...] = (
    (NotFound, 404, "There is nothing here"),
    (InvalidRequest, 400, "That cannot be asked for"),
    (NotAllowed, 409, "That does not go together"),
    (TooMany, 429, "That is too much at once"),
    (Failed, 422, "That cannot be made"),
    (Stopping, 503, "The server is stopping"),
    (DatabaseError, 503, "The database does not answer"),
)
OF_STATUS = {429: {"retry-after": "1"}}
OF_HTTP = {404: "There is nothing here", 405: "This page is for looking only"}


@dataclass
class Site:
    """What the pages stand on. `hub` None: nothing is followed."""

    store: Store
    door: Door
    hub: Hub | None = None
    slow: Threads = field(default_factory=lambda: Threads(PAGES, "formwright-pages"))
    figures: Threads = field(default_factory=lambda: Threads(FIGURES, "formwright-figures"))
    quick: Threads = field(default_factory=lambda: Threads(QUICK, "formwright-web"))
    drawings: Drawings = field(default_factory=Drawings)
    kept: Kept = field(default_factory=Kept)
    streams: Limits = field(default_factory=lambda: Limits(0, STREAMS))

    async def asked(
        self, request: Request, call: Callable[[pages.Asked], T], threads: Threads | None = None
    ) -> T:
        """What `call` makes of a request, in one of `threads`, for who has sent it. Raises
        Unauthenticated, TooMany, and whatever `call` raises."""
        caller = await self.door.caller(request)
        return await (threads or self.slow).run(call, self._asked(request, caller))

    def _asked(self, request: Request, caller: Caller) -> pages.Asked:
        store = self.store.seen_by(caller.sees)
        query = dict(request.query_params)
        session = not self.door.is_open and not bearer(request)
        return pages.Asked(store, caller, request.path_params, query, session, self.kept)

    async def close(self) -> None:
        """Waits for no page: nobody does any more."""
        for threads in (self.slow, self.figures, self.quick):
            threads.close()
        await self.drawings.close()


Numbers = Callable[[], tuple[bytes, str]]
Page = Callable[[pages.Asked], pages.Made]


def make_app(
    store: Store,
    gate: Gate,
    hub: Hub | None,
    secure: bool,
    *,
    local: bool = True,
    numbers: Numbers | None = None,
) -> ASGIApp:
    """The pages over a store, for whom the gate lets in. `secure`: it is served over TLS; `local`:
    to this machine only. `numbers` are the server's, for Prometheus."""
    site = Site(store, Door(gate, secure), hub)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await site.close()

    def page(path: str, made: Page) -> Route:
        return Route(path, partial(_page, site, made), methods=["GET"])

    routes: list[BaseRoute] = [
        Route("/", partial(_home, site), methods=["GET"]),
        page("/searches", pages.searches),
        page("/searches/{id}", pages.search),
        page("/searches/{id}/trials/{number}", pages.trial),
        page("/architectures/{fingerprint}", pages.architecture),
        Route("/searches/{id}/figures/{figure}", partial(_figure, site), methods=["GET"]),
        Route("/searches/{id}/live", partial(_live, site), methods=["GET"]),
        Route("/architectures/{fingerprint}/drawing", partial(_drawing, site), methods=["GET"]),
        Route("/login", partial(_show_login, site), methods=["GET"]),
        Route("/login", partial(_login, site), methods=["POST"]),
        Route("/logout", partial(_logout, site), methods=["POST"]),
        Route("/healthz", partial(_health, site), methods=["GET"]),
        *(Route(path, partial(_file, path), methods=["GET"]) for path in FILES),
    ]
    if numbers is not None:
        routes.append(Route("/metrics", partial(_metrics, site, numbers), methods=["GET"]))
    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: partial(_refused, site),
            Exception: partial(_failed, site),
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # one address for each page
    # around all of it: what fails within the framework gets its headers too
    return Guard(app, local=local, secure=secure)


async def _page(site: Site, made: Page, request: Request) -> Response:
    def whole(asked: pages.Asked) -> Response:
        found = made(asked)
        values = {"asked": asked, **found.values}
        return _html(render(found.template, values), found.status)

    try:
        return await site.asked(request, whole)
    except Unauthenticated:
        return to_login(request)
    except Exception as error:
        return await _error(site, error)


async def _figure(site: Site, request: Request) -> Response:
    try:
        found, fresh = await site.asked(request, pages.figure, site.figures)
    except Exception as error:
        return _short(error)
    headers = {"x-fresh": "yes" if fresh else "no", "vary": "accept-encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        packed = headers | {"content-encoding": "gzip"}
        return Response(found.packed, 200, packed, "application/json")
    return Response(found.content, 200, headers, "application/json")


async def _drawing(site: Site, request: Request) -> Response:
    try:
        spec = await site.asked(request, pages.spec_of, site.quick)
        svg = await site.drawings.of(spec)
        return Response(svg, media_type="image/svg+xml")
    except Exception as error:
        return _short(error)


async def _live(site: Site, request: Request) -> Response:
    try:
        caller, id, last = await site.asked(request, pages.last_of, site.quick)
    except Exception as error:
        return _short(error)
    if site.hub is None:
        return _short(NotFound("nothing is followed here"))
    if request.method == "HEAD":
        return Response(media_type="text/event-stream")
    given = request.headers.get("last-event-id") or request.query_params.get("after", "")
    after = int(given) if given.isdecimal() and len(given) < 10 else 0
    missed = not last - MISSED <= after <= last
    begin = last if missed else after
    check = partial(site.asked, request, pages.last_of, site.quick)
    held = site.streams.held(caller.token or peer_of(request))
    stream = live.events(site.hub.follow(id, begin), begin, missed, check, held)
    return StreamingResponse(stream, media_type="text/event-stream")


async def _home(site: Site, request: Request) -> Response:
    return RedirectResponse("/searches", 303)


async def _show_login(site: Site, request: Request) -> Response:
    way = way_on(request.query_params.get("next", ""))
    if site.door.is_open:
        return RedirectResponse(way, 303)
    return await _login_page(site, way)


async def _login_page(site: Site, way: str, error: str = "", status: int = 200) -> Response:
    text = await site.quick.run(render, "login.html", {"way": way, "error": error})
    answer = _html(text, status)
    # so that a browser says where the form comes from, also over plain HTTP
    answer.headers["referrer-policy"] = "same-origin"
    return answer


async def _login(site: Site, request: Request) -> Response:
    try:
        form = await read_form(request)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    way, peer = way_on(form.get("next", "")), peer_of(request)
    if not is_same_origin(request, sure=True):
        return await _login_page(site, way, "This form was sent by another site.", 403)
    try:
        secret = await site.door.enter(form.get("token", "").strip(), peer)
    except (Unauthenticated, TooMany) as error:
        status = 403 if isinstance(error, Unauthenticated) else 429
        return await _login_page(site, way, f"{error}.", status)
    except Exception as error:
        return await _error(site, error)
    # an older one of this browser ends by itself too
    with contextlib.suppress(DatabaseError, TooMany):
        await site.door.leave(request)
    answer = RedirectResponse(way, 303)
    site.door.remember(answer, secret)
    return answer


async def _logout(site: Site, request: Request) -> Response:
    if not is_same_origin(request, sure=False):
        return _short(NotAllowed("this form was sent by another site"))
    try:
        await site.door.leave(request)
    except Exception as error:
        return await _error(site, error)
    answer = RedirectResponse("/login", 303)
    site.door.forget(answer)
    return answer


async def _health(site: Site, request: Request) -> Response:
    try:
        await site.quick.run(site.store.ping)
    except DatabaseError as error:
        log.warning("%s", error)
        return PlainTextResponse("the database does not answer\n", 503)
    except Exception as error:
        return _short(error)
    return PlainTextResponse("ok\n")


async def _metrics(site: Site, numbers: Numbers, request: Request) -> Response:
    """For whoever has a token: there is nothing of any search in them."""
    try:
        content, kind = await site.asked(request, lambda _: numbers())
    except Exception as error:
        return _short(error)
    return Response(content, headers={"content-type": kind})


async def _file(path: str, request: Request) -> Response:
    return await answer_file(path, request)


async def _refused(site: Site, request: Request, error: Exception) -> Response:
    """What Starlette refuses: no such route, no such method."""
    status = getattr(error, "status_code", 400)
    values = {"status": status, "title": OF_HTTP.get(status, "That cannot be done"), "said": ""}
    answer = _html(await site.quick.run(render, "error.html", values), status)
    answer.headers.update(getattr(error, "headers", None) or {})
    return answer


async def _failed(site: Site, request: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)
    return await _error(site, error)


async def _error(site: Site, error: Exception) -> Response:
    status, title, said = _said(error)
    values = {"status": status, "title": title, "said": said}
    return _html(await site.quick.run(render, "error.html", values), status)


def _short(error: Exception) -> Response:
    """For what no person reads."""
    if isinstance(error, Unauthenticated):
        return PlainTextResponse("log in first\n", 401, {"www-authenticate": "Bearer"})
    status, title, said = _said(error)
    text = f"{title}: {said}\n" if said else f"{title}\n"
    return PlainTextResponse(text, status, OF_STATUS.get(status))


def _said(error: Exception) -> tuple[int, str, str]:
    """Status, title, and more; of what nobody should see, an id that the log explains. What is not
    there and what somebody else has read the same."""
    for kind, status, title in ERRORS:
        if isinstance(error, kind):
            if isinstance(error, DatabaseError):
                log.warning("%s", error)
            return status, title, "" if status in (404, 503) else str(error)
    id = uuid.uuid4().hex[:12]
    log.error("page failed, id %s", id, exc_info=error)
    return 500, "The server has failed", f"Its log has the reason under {id}."


def _html(text: str, status: int = 200) -> Response:
    return Response(text, status, OF_STATUS.get(status), "text/html")
