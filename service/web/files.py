"""The files that pages need beside themselves: a literal table, nothing else is served.

Each is read once, kept compressed, and known by its content. It must not know pages.
Next: `templates/`, which name them.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from ...search import asset

HERE = Path(__file__).parent / "static"
SCRIPT, STYLE, PICTURE = "text/javascript", "text/css", "image/svg+xml"
WORTH = 1024  # bytes from which on compression pays


def _ours(name: str) -> Callable[[], bytes]:
    return (HERE / name).read_bytes


def _shared(name: str) -> Callable[[], bytes]:
    """What a report has too."""
    return lambda: asset(name).encode()


# path -> kind, how it is read
FILES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "/static/page.css": (STYLE, _shared("page.css")),
    "/static/figures.js": (SCRIPT, _shared("figures.js")),
    "/static/plotly.min.js": (SCRIPT, _shared("plotly.min.js")),
    "/static/site.css": (STYLE, _ours("site.css")),
    "/static/live.js": (SCRIPT, _ours("live.js")),
    "/static/parts.js": (SCRIPT, _ours("parts.js")),
    "/static/icon.svg": (PICTURE, _ours("icon.svg")),
}


@cache
def _kept(path: str) -> tuple[bytes, bytes, str]:
    """The content, the same compressed (empty: it is not worth it), its tag."""
    content = FILES[path][1]()
    packed = gzip.compress(content, mtime=0) if len(content) > WORTH else b""
    return content, packed, f'"{hashlib.sha256(content).hexdigest()[:20]}"'


async def answer_file(path: str, request: Request) -> Response:
    """One of the table; nothing again to who has it."""
    content, packed, tag = await asyncio.to_thread(_kept, path)
    headers = {"etag": tag, "cache-control": "no-cache", "vary": "accept-encoding"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if packed and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(packed, 200, headers | {"content-encoding": "gzip"}, FILES[path][0])
    return Response(content, 200, headers, FILES[path][0])
