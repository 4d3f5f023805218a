"""Threads for what blocks, of which none keeps the process from ending.

Those of `concurrent.futures` are joined when an interpreter ends, whatever they compute; a page
that nobody waits for any more is not worth that: it reads only. It must not know what is computed.
Next: `app.py`, which has some for each kind of work.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """At most `count`, begun when they are first needed. `close()` waits for none."""

    def __init__(self, count: int, name: str) -> None:
        self._count, self._name = count, name
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._work = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._begun = self._open = 0  # threads, and calls that wait or are being done
        self._closed = False

    async def run(self, call: Callable[..., T], *given: Any) -> T:
        """What it returns or raises; who is cancelled waits no longer. Raises RuntimeError once
        they are closed."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("no threads any more")
            if self._begun < min(self._open + 1, self._count):
                name = f"{self._name}-{self._begun + 1}"
                threading.Thread(target=self._go_on, name=name, daemon=True).start()
                self._begun += 1  # only now: there may be no more threads for us
            self._work.put((future, lambda: call(*given)))
            self._open += 1
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """What waits is cancelled, what is being done comes to nothing."""
        with self._lock:
            self._closed = True
            with contextlib.suppress(queue.Empty):
                while (work := self._work.get_nowait()) is not None:
                    work[0].cancel()
            for _ in range(self._begun):
                self._work.put(None)

    def _go_on(self) -> None:
        while (work := self._work.get()) is not None:
            _do(*work)
            del work  # what it has made is not held until the next
            with self._lock:
                self._open -= 1


def _do(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        found = call()
    except BaseException as error:
        _end(future, error=error)
    else:
        _end(future, found)


def _end(future: Future[Any], found: Any = None, error: BaseException | None = None) -> None:
    try:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(found)
    except RuntimeError:  # the loop that waited for it has been closed
        pass
