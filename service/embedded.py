"""`local_server`: a server of one's own for as long as a `with` block lasts.

For a notebook, an example or a test; it is the same server as `formwright serve`, in a process of
its own on a free port of this machine. Next: `server.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import SetupError
from .settings import SETTINGS

PIPE_S, STOP_S = 10.0, 60.0


@contextmanager
def local_server(database: str | Path, *, workers: int = 2, port: int = 0) -> Iterator[str]:
    """Yields the address, `host:port`. The searches go on where a server before it left them, if
    the database is there already. Raises SetupError if it does not start."""
    process = start_server(database, workers=workers, port=port)
    try:
        yield address_of(process)
    finally:
        stop_server(process)


def start_server(
    database: str | Path, *, workers: int = 2, port: int = 0, **more: Any
) -> subprocess.Popen[str]:
    """The process, which ends when its standard input is closed or this process ends. `more` is
    for `subprocess.Popen`: an environment, a file for the log."""
    command = [sys.executable, "-P", "-m", "formwright", "serve", "--with-parent"]
    # all that settings could say otherwise: it is this machine's, with workers of its own
    command += [f"--workers={workers}", f"--port={port}", "--host=127.0.0.1", "--ray="]
    command += ["--certificate=", "--key=", "--client-ca=", "--tokens=auto"]
    command += ["--web=", "--retention-days=0"]
    environment = more.pop("env", None) or os.environ
    # its own session: a Ctrl-C in the terminal is for whoever started it, which then stops it
    return subprocess.Popen(
        command,
        env={**environment, SETTINGS["database"].variable: str(database)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **more,
    )


def address_of(process: subprocess.Popen[str]) -> str:
    """Waits until the server answers. Raises SetupError if it ends instead; it has said why on
    standard error."""
    line = process.stdout.readline() if process.stdout else ""
    if not line.startswith("formwright serves on "):
        raise SetupError(f"the server did not start, exit code {process.wait()}")
    return line.removeprefix("formwright serves on ").partition(",")[0]


def stop_server(process: subprocess.Popen[str]) -> None:
    """Ends it in order, and whatever it started with it."""
    if process.stdin is not None:
        process.stdin.close()
    # who has forked meanwhile holds that pipe open, and then a signal says so
    for patience, insist in ((PIPE_S, process.terminate), (STOP_S, process.kill)):
        try:
            process.wait(patience)
            break
        except subprocess.TimeoutExpired:
            insist()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
