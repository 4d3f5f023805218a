"""A small process that outlives its parent and ends what the parent left behind.

Ray's agents survive a driver that is killed. The parent starts this with a pipe as its standard
input and writes lines of JSON: a `folder`, and `processes`, (pid, start time) each. When the pipe
closes, because the parent closed it or died, those processes and all that have the folder on their
command line are killed with their children, and the folder is removed, until nothing of them is
left. It must not import ray. Next: `ray_pool.py`.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

LIMIT_S = 60.0  # for all of it
FOLDER_S = 5.0  # for a folder that cannot be removed
ROUND_S = 2.0  # for those that are killed to be gone


class Reaper:
    """The parent's end: `watch` what was started, `close` to have it ended."""

    def __init__(self, folder: str) -> None:
        command = [sys.executable, "-P", "-c", f"from {__name__} import reap; reap()"]
        # a session of its own, so that a Ctrl-C meant for the parent does not end it first
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        self._tell({"folder": folder})

    def watch(self, processes: Sequence[psutil.Process]) -> None:
        self._tell({"processes": [(p.pid, p.create_time()) for p in processes if p.is_running()]})

    def _tell(self, line: dict[str, object]) -> None:
        if self._child.stdin is not None:
            self._child.stdin.write(json.dumps(line) + "\n")
            self._child.stdin.flush()

    def close(self) -> None:
        if self._child.stdin is not None:
            self._child.stdin.close()
        self._child.wait(timeout=2 * LIMIT_S)


def reap() -> None:
    """The child's end: read what to watch until the pipe ends, then kill and remove."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    folder, rows = "", []
    for line in sys.stdin:  # until the parent is gone
        given = json.loads(line)
        folder = given.get("folder", folder)
        rows += given.get("processes", [])
    end(rows, folder)


def end(rows: Sequence[tuple[int, float]], folder: str) -> None:
    """Looks, kills and removes until nothing is found any more: what was killed may have started
    another just before, and have written once more where all was removed. Nothing without a folder:
    the parent died before it could name one, and the empty word is on every command line."""
    if not folder:
        return
    until, pause = time.monotonic() + LIMIT_S, 0.02
    while True:
        doomed = {p for top in _found(rows, folder) for p in (top, *_children(top)) if _alive(p)}
        for process in doomed:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(list(doomed), timeout=ROUND_S)
        shutil.rmtree(folder, ignore_errors=True)
        if (not doomed and not Path(folder).exists()) or time.monotonic() > until:
            return
        if not doomed:  # only the folder is left, which others may hold
            until = min(until, time.monotonic() + FOLDER_S)
        time.sleep(pause)
        pause = min(2 * pause, 1.0)


def _found(rows: Sequence[tuple[int, float]], folder: str) -> Iterator[psutil.Process]:
    for pid, created in rows:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.create_time() == created:  # and not a later process of the same number
                yield process
    for process in psutil.process_iter():  # what was started before it could be watched
        with suppress(psutil.Error):
            if any(folder in argument for argument in process.cmdline()):
                yield process


def _alive(process: psutil.Process) -> bool:
    """A zombie is not: it is there until its parent asks, which it may never do."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []
