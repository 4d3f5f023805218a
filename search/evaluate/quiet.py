"""Latency is measured with nothing else running in our own processes on the machine.

Work is done in slices (`working`: a training step, a compilation); a measurement takes place
between slices (`alone`). It is a readers-writer lock on two files that every process of a user
opens: whoever comes in passes the turnstile, and a measurer keeps it while it waits for the room
to empty, so a stream of workers cannot keep it out. The kernel frees the locks of a process that
dies. The files lie in a folder of the user's below `tempfile.gettempdir()`; the environment
variable `FORMWRIGHT_QUIET_DIR` names another one (for containers that share a machine but no
/tmp, and for tests).

It must not know what the work is, nor torch. Next: `latency.py`, which measures.
"""

from __future__ import annotations

import fcntl
import os
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import PoolError

VARIABLE = "FORMWRIGHT_QUIET_DIR"
POLL_S = 0.001  # a measurer's
NAP_S = 0.02  # a worker's: whoever waits must not disturb whom it waits for
PATIENCE_S = 60.0  # a measurer that gave no sign of life for so long hangs, and work goes on
SIGN_S = 1.0  # between two signs of life


class _Thread(threading.local):
    """Which of the two this thread is inside of, by name."""

    inside = ""


_thread = _Thread()
_open: set[int] = set()


@contextmanager
def working() -> Iterator[None]:
    """One slice of work: waits while somebody measures, but not for a measurer that hangs. Keep
    slices short, for a measurer waits for the longest one. Inside another slice, or inside
    `alone`, it does nothing."""
    if _thread.inside:
        yield
        return
    room = _enter()
    _thread.inside = "working"
    try:
        yield
    finally:
        _thread.inside = ""
        if room is not None:
            _free(room)


@contextmanager
def alone(until: float | None = None) -> Iterator[Callable[[], None]]:
    """Waits until no slice is running anywhere on the machine, and keeps others out meanwhile.

    Yields a function to call now and then while measuring: a sign of life, without which others
    take the measurer for one that hangs after `PATIENCE_S`. Raises TimeoutError if the machine was
    not quiet when `time.monotonic()` is `until`.
    """
    if _thread.inside == "working":
        raise RuntimeError("alone() inside working() would wait for itself; leave the slice first")
    if _thread.inside:
        yield lambda: None
        return
    with _held("turnstile", _Wait(fcntl.LOCK_EX, until)) as turnstile:
        alive = _Sign(turnstile)
        with _held("room", _Wait(fcntl.LOCK_EX, until, meanwhile=alive)):
            _thread.inside = "alone"
            try:
                yield alive
            finally:
                _thread.inside = ""


def _enter() -> int | None:
    """Through the turnstile, one at a time: workers that overlap would starve the measurers.
    None if whoever keeps us out hangs."""
    waited_from = time.monotonic()

    def give_up() -> None:
        silent = _silent_s()
        if time.monotonic() - waited_from > PATIENCE_S and not 0 <= silent <= PATIENCE_S:
            raise TimeoutError

    try:
        with _held("turnstile", _Wait(fcntl.LOCK_EX, nap_s=NAP_S, meanwhile=give_up)):
            return _take("room", _Wait(fcntl.LOCK_SH, nap_s=NAP_S, meanwhile=give_up))
    except TimeoutError:
        return None


class _Sign:
    """Writes the time into the turnstile's file, once a second at most."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._last = float("-inf")
        self()

    def __call__(self) -> None:
        now = time.monotonic()  # one clock for all processes of a machine
        if now - self._last >= SIGN_S:
            os.pwrite(self._file, struct.pack("d", now), 0)
            self._last = now


def _silent_s() -> float:
    """How long ago the last sign of life was; infinite if there was none."""
    file = _opened("turnstile")
    try:
        data = os.pread(file, 8, 0)
    finally:
        os.close(file)
    return time.monotonic() - struct.unpack("d", data)[0] if len(data) == 8 else float("inf")


def folder() -> str:
    """Where the locks are."""
    given = os.environ.get(VARIABLE)
    return given or os.path.join(tempfile.gettempdir(), f"formwright-{os.getuid()}")


@dataclass(frozen=True)
class _Wait:
    """How a lock is taken: shared or not, until when, how often it is tried, and what is done each
    time that it was not free."""

    how: int
    until: float | None = None
    nap_s: float = POLL_S
    meanwhile: Callable[[], None] = lambda: None


@contextmanager
def _held(name: str, wait: _Wait) -> Iterator[int]:
    file = _take(name, wait)
    try:
        yield file
    finally:
        _free(file)


def _take(name: str, wait: _Wait) -> int:
    """Opens the file anew, because locks belong to an opening: so threads exclude each other as
    processes do."""
    file = _opened(name)
    _open.add(file)
    try:
        _poll(file, wait)
    except BaseException:
        _free(file)
        raise
    return file


def _poll(file: int, wait: _Wait) -> None:
    """`flock` with a time limit, which the system call does not have."""
    while True:
        try:
            fcntl.flock(file, wait.how | fcntl.LOCK_NB)
        except BlockingIOError:
            if wait.until is not None and time.monotonic() > wait.until:
                raise TimeoutError("the machine did not become quiet in time") from None
            wait.meanwhile()
            time.sleep(wait.nap_s)
        else:
            return


def _opened(name: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    path = os.path.join(folder(), name)
    try:
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            os.makedirs(folder(), mode=0o700, exist_ok=True)
            return os.open(path, flags, 0o600)
    except OSError as error:
        why = f"cannot keep locks in {folder()}: {error}"
        raise PoolError(f"{why}; name another folder in {VARIABLE}") from error


def _free(file: int) -> None:
    """Unlocks, then closes: a child forked meanwhile has the same opening and would keep it."""
    if file not in _open:  # a forked child, leaving what its parent entered
        return
    _open.remove(file)
    fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


def _forget() -> None:
    """In a forked child: what the parent holds is the parent's, or it would outlive the parent."""
    for file in _open:
        os.close(file)
    _open.clear()
    _thread.inside = ""


os.register_at_fork(after_in_child=_forget)
