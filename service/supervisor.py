"""Keeps one scheduler process running beside the server, and starts another when it ends.

It must not know what a scheduler does. Next: `scheduler.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import sys

from . import logs
from .errors import ServiceError
from .names import new_owner
from .settings import LEASE_S, SETTINGS, Settings
from .store import Store

log = logging.getLogger("formwright.service")

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, LEASE_S  # no search waits longer than for a lost lease
STEADY_S = 10.0  # one that lived for so long has not ended at once
LETTING_GO_S = 30.0
STDERR = 2  # what Ray prints is no answer of the server, whose standard output may be gone first
# no process, no memory, no file is left: somebody may give one back
_FOR_NOW = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class Supervisor:
    """`run()` until `stop()`. `pid` is the scheduler's, while there is one; `restarts` counts those
    that ended by themselves."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def run(self) -> None:
        """Starts a scheduler whenever there is none; waits longer each time it ends at once."""
        wait = FIRST_WAIT_S
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            owner = new_owner()
            started = loop.time()
            try:
                self._process = await self._start(owner)
            except OSError as error:
                if error.errno not in _FOR_NOW:
                    raise
                log.warning("the scheduler does not start, again in %.1f s: %s", wait, error)
            else:
                code = await self._ended(self._process)
                self._process = None
                if self._stopping.is_set():
                    return
                self.restarts += 1
                # its lease need not run out: it is known to be gone
                await loop.run_in_executor(None, self._release, owner)
                if loop.time() - started > STEADY_S:
                    wait = FIRST_WAIT_S
                said = "the scheduler ended with code %d; another starts in %.1f s"
                log.warning(said, code, wait)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait)
            wait = min(2 * wait, LONGEST_WAIT_S)

    def _release(self, owner: str) -> None:
        try:
            self._store.release(owner)
        except ServiceError as error:  # then the lease does run out
            log.warning("%s", error)

    async def _start(self, owner: str) -> asyncio.subprocess.Process:
        given = self._settings
        arguments = [f"--owner={owner}", f"--workers={given.workers}"]
        arguments += [f"--retention-days={given.retention_days}"]
        arguments += [f"--ray={given.ray}"] if given.ray else []
        # A session of its own: a Ctrl-C in the terminal is for the server, which closes the pipe.
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # what lies in the folder where the server was started is none of ours
            "-m",
            "formwright.service.scheduler",
            *arguments,
            # not among the arguments, which everybody on this machine sees: it may have a password
            env={**logs.passed_on(), SETTINGS["database"].variable: given.database},
            stdin=asyncio.subprocess.PIPE,
            stdout=STDERR,
            start_new_session=True,
        )

    async def _ended(self, process: asyncio.subprocess.Process) -> int:
        """The exit code; once the server stops, the pipe is closed, and then patience ends."""
        exited = asyncio.ensure_future(process.wait())
        stopped = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({exited, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if process.stdin is not None:
            process.stdin.close()
        try:
            return await asyncio.wait_for(exited, LETTING_GO_S)
        except TimeoutError:
            process.kill()
            return await process.wait()

    def stop(self) -> None:
        self._stopping.set()
