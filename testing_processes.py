"""For tests that kill processes: what one has started, and what of that is left behind.

It must not know what the processes do. Next: `search/testing_chaos.py`, `service/testing_chaos.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

LOOK_S = 0.1


def descendants(pid: int) -> list[psutil.Process]:
    """All that live and were started by it, or by those; none if it is gone."""
    with suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def running(processes: Iterable[psutil.Process], *words: str) -> list[psutil.Process]:
    """Those with one of the words on their command line; all that live if there are no words."""
    found = []
    for process in processes:
        with suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if alive(process) and (not words or any(word in line for word in words)):
                found.append(process)
    return found


def ray_workers(pid: int) -> list[psutil.Process]:
    """The Ray actors of a driver, or of one below it."""
    return running(descendants(pid), "_Worker")


def alive(process: psutil.Process) -> bool:
    """A zombie is not: it only waits to be counted."""
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def left(processes: Iterable[psutil.Process], limit_s: float) -> list[psutil.Process]:
    """Those that still live after that time."""
    until = time.monotonic() + limit_s
    living = [process for process in processes if alive(process)]
    while living and time.monotonic() < until:
        time.sleep(LOOK_S)
        living = [process for process in living if alive(process)]
    return living


def with_variable(name: str, value: str) -> list[psutil.Process]:
    """Those of this machine that were started with this variable in their environment, which all
    inherit that they start."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if alive(process) and process.environ().get(name) == value:
                found.append(process)
    return found


class Undertaker:
    """Looks after processes that must end soon, within `limit_s`: `longest` is how many seconds one
    has taken, `late` are those that took too long."""

    def __init__(self, limit_s: float) -> None:
        self.longest = 0.0
        self.late: list[str] = []
        self._limit_s = limit_s
        self._doomed: dict[psutil.Process, tuple[float, str]] = {}
        self._lock, self._done = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def take(self, processes: Iterable[psutil.Process]) -> None:
        """From now on they should end."""
        now = time.monotonic()
        with self._lock:
            for process in processes:
                self._doomed.setdefault(process, (now, _line(process)))

    def _look(self) -> None:
        while not self._done.wait(LOOK_S):
            self._bury()

    def _bury(self) -> None:
        with self._lock:
            for process, (since, line) in list(self._doomed.items()):
                took = time.monotonic() - since
                gone = not alive(process)
                if gone or took > self._limit_s:
                    self.longest = max(self.longest, took)
                    del self._doomed[process]
                    if took > self._limit_s:
                        how = "only then" if gone else "still there"
                        self.late.append(f"after {took:.0f} s {how}: {process.pid} {line}")

    def close(self) -> None:
        """Once all have ended, or were late."""
        while self._doomed:
            time.sleep(LOOK_S)
        self._done.set()
        self._thread.join()


def _line(process: psutil.Process) -> str:
    """What it is, for people."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline())[:120]
    return "gone"
