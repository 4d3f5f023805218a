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
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "FORMWRIGHT_QUIET_DIR"
POLL_S = 0.001  # a measurer's
NAP_S = 0.02  # a worker's: whoever waits must not disturb whom it waits for
PATIENCE_S = 60.0  # a measurement takes a second; one that takes so long hangs, and work goes on


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
def alone(until: float | None = None) -> Iterator[None]:
    """Waits until no slice is running anywhere on the machine, and keeps others out meanwhile.

    Raises TimeoutError if that has not come to pass when `time.monotonic()` is `until`.
    """
    if _thread.inside == "working":
        raise RuntimeError("alone() inside working() would wait for itself; leave the slice first")
    if _thread.inside:
        yield
        return
    with _held("turnstile", fcntl.LOCK_EX, until), _held("room", fcntl.LOCK_EX, until):
        _thread.inside = "alone"
        try:
            yield
        finally:
            _thread.inside = ""


def _enter() -> int | None:
    """Through the turnstile, one at a time: workers that overlap would starve the measurers.
    None if the patience was not enough."""
    until = time.monotonic() + PATIENCE_S
    try:
        with _held("turnstile", fcntl.LOCK_EX, until, NAP_S):
            return _take("room", fcntl.LOCK_SH, until, NAP_S)
    except TimeoutError:
        return None


def folder() -> str:
    """Where the locks are."""
    given = os.environ.get(VARIABLE)
    return given or os.path.join(tempfile.gettempdir(), f"formwright-{os.getuid()}")


@contextmanager
def _held(name: str, how: int, until: float | None = None, nap_s: float = POLL_S) -> Iterator[None]:
    file = _take(name, how, until, nap_s)
    try:
        yield
    finally:
        _free(file)


def _take(name: str, how: int, until: float | None = None, nap_s: float = POLL_S) -> int:
    """Opens the file anew, because locks belong to an opening: so threads exclude each other as
    processes do."""
    file = _opened(name)
    _open.add(file)
    try:
        if until is None:
            fcntl.flock(file, how)
        else:
            _poll(file, how, until, nap_s)
    except BaseException:
        _free(file)
        raise
    return file


def _poll(file: int, how: int, until: float, nap_s: float) -> None:
    """`flock` with a time limit, which the system call does not have. Nobody holds the turnstile
    for long but a measurer, and nobody enters the room while we hold the turnstile."""
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError("the machine did not become quiet in time") from None
            time.sleep(nap_s)
        else:
            return


def _opened(name: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    path = os.path.join(folder(), name)
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(folder(), mode=0o700, exist_ok=True)
        return os.open(path, flags, 0o600)


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
