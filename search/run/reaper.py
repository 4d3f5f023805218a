"""A small process that outlives its parent and ends what the parent left behind.

Ray's agents survive a driver that is killed. The parent starts this with a pipe as its standard
input and writes one line: JSON with `processes`, (pid, start time) each, and `folders`. When the
pipe closes, because the parent closed it or died, the processes are killed and the folders
removed. It must not import ray. Next: `ray_pool.py`.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence

import psutil


class Reaper:
    """The parent's end: `watch` once, `close` when everything was ended in order."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", f"from {__name__} import reap; reap()"]
        # a session of its own, so that a Ctrl-C meant for the parent does not end it first
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, text=True, start_new_session=True
        )

    def watch(self, processes: Sequence[psutil.Process], folders: Sequence[str]) -> None:
        rows = [(process.pid, process.create_time()) for process in processes]
        if self._child.stdin is not None:
            self._child.stdin.write(json.dumps({"processes": rows, "folders": list(folders)}))
            self._child.stdin.write("\n")
            self._child.stdin.flush()

    def close(self) -> None:
        if self._child.stdin is not None:
            self._child.stdin.close()
        self._child.wait(timeout=30)


def reap() -> None:
    """The child's end: read what to watch, wait for the end of the pipe, kill, remove."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    line = sys.stdin.readline()
    sys.stdin.read()  # until the parent is gone
    if not line:
        return
    given = json.loads(line)
    doomed: list[psutil.Process] = []
    for pid, created in given["processes"]:
        try:
            process = psutil.Process(pid)
            if process.create_time() == created:  # and not a later process of the same number
                doomed += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    for process in doomed:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(doomed, timeout=10)
    for folder in given["folders"]:
        shutil.rmtree(folder, ignore_errors=True)
