"""Watches: whoever follows a search gets every event once, in order, and slows nobody down.

One task looks for news of all searches that are watched, together and only if the database has
changed; what it finds is read and encoded once for all who follow. Whoever is behind, because it
began earlier or reads slowly, reads from the store by itself until it has caught up: nothing is
dropped and nothing piles up. It must not know grpc. Next: `servicer.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Protocol, TypeVar

from ..errors import FormwrightError
from . import convert
from .errors import DatabaseError, InternalError, NotFound, OutOfRange, Stopping
from .records import SearchState
from .store import Store
from .store.store import Progress
from .wire import search_pb2 as pb

LOOK_S = 0.1  # how old an event may be when it is found
BOOKMARK_S = 10.0  # of silence, after which a watcher is told that nothing is new
EVENTS = 200  # in one message
KEPT = 32  # messages of a search, for those who are a little behind

T = TypeVar("T")
log = logging.getLogger("formwright.service")


class InThread(Protocol):
    """Runs a function of the store where it may block."""

    async def __call__(self, call: Callable[..., T], *given: object) -> T: ...


class _Line:
    """What is known of one search that is watched: its newest event and its latest messages."""

    def __init__(self, last: int, final: bool) -> None:
        self.last, self.final = last, final
        self.messages: deque[tuple[int, int, bytes]] = deque(maxlen=KEPT)  # after, last, encoded
        self.watchers = 0
        self.error: FormwrightError | None = None  # why there is nothing more to be had
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Future[bool]] = set()
        self._told = self._loop.time()

    def message_after(self, after: int) -> tuple[int, bytes] | None:
        """The one that begins behind `after`, if it is kept."""
        for begin, last, message in reversed(self.messages):
            if begin == after:
                return last, message
        return None

    def tell(self, news: bool = True) -> None:
        """Wakes all who wait."""
        self._told = self._loop.time()
        waiting, self._waiting = self._waiting, set()
        for each in waiting:
            if not each.done():
                each.set_result(news)

    def beat(self) -> None:
        """Wakes all who wait if nothing was told for long: one clock for all of them."""
        if self._loop.time() - self._told > BOOKMARK_S:
            self.tell(news=False)

    async def news(self) -> bool:
        """Waits until there is some; False if there was none for long. Each waits for a future of
        its own, so that one who is cancelled takes nobody along."""
        mine: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.add(mine)
        try:
            return await mine
        finally:
            self._waiting.discard(mine)


class Hub:
    """All watches of a server. `run()` until `stop()`."""

    def __init__(self, store: Store, in_thread: InThread) -> None:
        self._store = store
        self._in_thread = in_thread
        self._lines: dict[str, _Line] = {}
        self._joining = False  # whether there is a line that may be older than the last look
        self._stopping = asyncio.Event()

    async def follow(self, id: str, after: int) -> AsyncGenerator[bytes, None]:
        """Encoded messages, until the search has ended. Raises NotFound, OutOfRange, and
        Stopping when the server stops, behind a bookmark."""
        if self._stopping.is_set():
            raise Stopping("the server is stopping; watch again")
        line = await self._joined(id, after)
        try:
            while not self._stopping.is_set():
                if after < line.last:
                    found = line.message_after(after)
                    if found is None:
                        given = (self._store, id, after, line.last)
                        found = await self._in_thread(encoded, *given)
                    after, message = found
                    yield message
                elif line.error is not None:
                    raise line.error
                elif line.final:
                    return
                elif not await line.news():
                    yield bookmark(after)
            yield bookmark(after)
            raise Stopping("the server is stopping; watch again")
        finally:
            self._leave(id, line)

    async def _joined(self, id: str, after: int) -> _Line:
        found = await self._in_thread(self._store.progress_of, [id])
        last, state = known(id, found.get(id))
        line = self._lines.get(id)
        if line is None:
            line = self._lines[id] = _Line(last, state.final)
            self._joining = True
        line.watchers += 1
        if after > max(last, line.last):
            self._leave(id, line)
            said = f"{after} is beyond the newest event, {last}"
            raise OutOfRange(said, "after_sequence")
        return line

    def _leave(self, id: str, line: _Line) -> None:
        line.watchers -= 1
        if not line.watchers and self._lines.get(id) is line:
            del self._lines[id]

    async def run(self) -> None:
        """Looks at a steady pace; how long it takes to tell all watchers does not add to it."""
        clock = asyncio.get_running_loop().time
        seen, due = None, clock()
        while not self._stopping.is_set():
            version = self._store.version()
            joining, self._joining = self._joining, False
            if self._lines and (joining or version is None or version != seen):
                seen = version if await self._look_at_all() else None
            for line in list(self._lines.values()):
                line.beat()
            due = max(due + LOOK_S, clock() + LOOK_S / 4)
            try:
                await asyncio.wait_for(self._stopping.wait(), due - clock())
            except TimeoutError:
                continue

    async def _look_at_all(self) -> bool:
        """Whether all is seen that was there before."""
        lines = dict(self._lines)
        try:
            found = await self._in_thread(self._store.progress_of, list(lines))
        except DatabaseError as error:  # it is busy now, and may be free later
            log.warning("watching %d searches: %s", len(lines), error)
            return False
        return all([await self._look(id, line, found.get(id)) for id, line in lines.items()])

    async def _look(self, id: str, line: _Line, now: Progress | None) -> bool:
        try:
            last, state = known(id, now)
            while line.last < last and not self._stopping.is_set():
                begin = line.last
                end, message = await self._in_thread(encoded, self._store, id, begin, last)
                line.messages.append((begin, end, message))
                line.last = end
                line.tell()
            if state.final and not line.final:
                line.final = True
                line.tell()
        except DatabaseError as error:
            log.warning("watching %s: %s", id, error)
            return False
        except FormwrightError as error:  # deleted, or unreadable: the others go on
            line.error = error
            line.tell()
        except Exception as error:
            log.exception("watching %s", id)
            line.error = InternalError(f"the watch of {id} failed: {error}")
            line.tell()
        return True

    @property
    def watchers(self) -> int:
        """How many there are now; asked from any thread."""
        return sum(line.watchers for line in list(self._lines.values()))

    def stop(self) -> None:
        self._stopping.set()
        for line in self._lines.values():
            line.tell()


def known(id: str, found: Progress | None) -> tuple[int, SearchState]:
    """What was found of a search. Raises NotFound, or InternalError if it cannot be read."""
    if found is None:
        raise NotFound(f"there is no search {id!r}")
    if isinstance(found, InternalError):
        raise found
    return found


def message_after(store: Store, id: str, after: int, last: int) -> pb.WatchSearchResponse:
    """The events behind `after` up to `last`, at most `EVENTS`."""
    events = store.events(id, after, min(EVENTS, last - after))
    return pb.WatchSearchResponse(
        events=[convert.to_event(event) for event in events],
        last_sequence=events[-1].sequence,
        progress=convert.to_progress(store.get_search(id)),
    )


def encoded(store: Store, id: str, after: int, last: int) -> tuple[int, bytes]:
    """The same as bytes, and the number of its last event."""
    message = message_after(store, id, after, last)
    return message.last_sequence, message.SerializeToString()


def bookmark(after: int) -> bytes:
    return pb.WatchSearchResponse(last_sequence=after).SerializeToString()
