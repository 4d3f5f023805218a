"""What happens in a search, as Server-Sent Events: that something did, not what.

A page that is told so reads itself again. Events come at most twice a second however much happens,
and a beat comes in silence, so that a page knows that it is still listening. Whoever may look no
longer is sent away within seconds. It must not know what a page shows.
Next: `static/live.js`, who listens; `../watch.py`, where the events come from.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing
from typing import Any

from ...errors import FormwrightError
from ..errors import NotFound, Unauthenticated
from ..wire import search_pb2 as pb

LEAST_S = 0.5  # between two events
BEAT_S = 4.0  # of silence, after which it is looked who may still look

log = logging.getLogger("formwright.service")
Follow = AsyncGenerator[bytes, None]


class _News:
    """What has come since somebody took it."""

    def __init__(self, last: int, missed: bool) -> None:
        self.last, self.joined, self.left = last, set[int](), 0
        self.fresh, self.ended = missed, ""
        self.come = asyncio.Event()
        if missed:
            self.come.set()

    def add(self, message: bytes) -> None:
        found = pb.WatchSearchResponse.FromString(message)
        for event in found.events:
            if event.HasField("front_change"):
                self.joined.add(event.trial.number)
                self.left += len(event.front_change.left_numbers)
        self.last = found.last_sequence
        if found.events:
            self.fresh = True
            self.come.set()

    def end(self, why: str) -> None:
        self.ended = why
        self.come.set()

    def take(self) -> dict[str, Any]:
        told = {"joined": sorted(self.joined), "left": self.left}
        self.joined, self.left, self.fresh = set(), 0, False
        if not self.ended:
            self.come.clear()
        return told


async def events(
    messages: Follow,
    last: int,
    missed: bool,
    check: Callable[[], Awaitable[object]],
    held: AbstractContextManager[None],
) -> AsyncIterator[bytes]:
    """Events of the stream of a search, behind event `last`; `missed` if there were some before
    that nobody was told of. `check` raises Unauthenticated or NotFound once the one who looks may
    not any more; `held` counts streams, and raises TooMany."""
    news = _News(last, missed)
    try:
        with held:
            async with aclosing(_told(messages, news, check)) as told:
                async for event in told:
                    yield event
    except Unauthenticated:
        yield _event("end", {"why": "login"}, news.last)
    except FormwrightError as error:
        yield _event("end", {"why": "gone" if isinstance(error, NotFound) else "away"}, news.last)


async def _told(
    messages: Follow, news: _News, check: Callable[[], Awaitable[object]]
) -> AsyncGenerator[bytes, None]:
    yield _event("beat", {}, news.last)
    pump = asyncio.ensure_future(_pump(messages, news))
    clock = asyncio.get_running_loop().time
    checked = clock()
    try:
        while True:
            try:
                await asyncio.wait_for(news.come.wait(), BEAT_S)
            except TimeoutError:
                yield _event("beat", {}, news.last)
            if clock() - checked >= BEAT_S:
                await check()
                checked = clock()
            if news.fresh:
                yield _event("news", news.take(), news.last)
                await asyncio.sleep(LEAST_S)
            elif news.ended:
                yield _event("end", {"why": news.ended}, news.last)
                return
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)


async def _pump(messages: Follow, news: _News) -> None:
    """`done`: the search has ended; `gone`: it is not there any more; `away`: ask again later."""
    try:
        async with aclosing(messages):
            async for message in messages:
                news.add(message)
        news.end("done")
    except NotFound:
        news.end("gone")
    except FormwrightError:
        news.end("away")
    except Exception:
        log.exception("a stream of events has failed")
        news.end("away")


def _event(name: str, data: dict[str, Any], last: int) -> bytes:
    return f"event: {name}\nid: {last}\ndata: {json.dumps(data)}\n\n".encode()
