"""Drawings of architectures. What an architecture is made of is known to torch modules only, which
this process does not load: another one draws, and ends when there is nothing to draw.

It must not know requests. Next: `drawer.py`, the other process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import OrderedDict
from functools import partial

from ...search import ArchSpec
from ..errors import Failed

PATIENCE_S = 60.0  # until a drawing is there; the first one waits for torch
IDLE_S = 60.0  # without a drawing, after which the process ends
KEPT = 256
LONGEST = 8 << 20  # bytes of an answer


class Drawings:
    """One drawing at a time. `close()` ends the process. Used in one event loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, asyncio.Future[str]] = OrderedDict()
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def of(self, spec: ArchSpec) -> str:
        """The SVG. Raises Failed if it cannot be drawn."""
        key = spec.fingerprint()
        drawing = self._kept.get(key)
        if drawing is None:
            drawing = self._kept[key] = asyncio.ensure_future(self._drawn(spec))
            drawing.add_done_callback(partial(self._done, key))
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return await asyncio.shield(drawing)  # who has asked may go: it is there for the next one

    def _done(self, key: str, drawing: asyncio.Future[str]) -> None:
        """What has failed may go well another time."""
        if drawing.cancelled() or drawing.exception() is not None:
            self._kept.pop(key, None)

    async def _drawn(self, spec: ArchSpec) -> str:
        async with self._lock:
            if self._idle is not None:
                self._idle.cancel()
            try:
                answer = await asyncio.wait_for(self._ask(spec.to_json()), PATIENCE_S)
            except (TimeoutError, OSError, ValueError) as error:
                self._end()
                raise Failed(f"the drawing did not come: {error or 'too late'}") from error
            self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._end)
        if "svg" not in answer:
            raise Failed(str(answer.get("error", "it cannot be drawn")))
        return str(answer["svg"])

    async def _ask(self, spec: str) -> dict[str, str]:
        for _ in range(2):  # it may have ended since it drew last: then a new one tries
            if line := await self._line(spec):
                answer = json.loads(line)
                return answer if isinstance(answer, dict) else {}
            self._end()
        return {"error": "the process that draws has ended"}

    async def _line(self, spec: str) -> bytes:
        """What it answers; empty if it ends instead."""
        process = self._process
        if process is None or process.returncode is not None:
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", f"{__package__}.drawer"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LONGEST,
                start_new_session=True,  # a Ctrl-C in the terminal is for the server
            )
        if process.stdin is None or process.stdout is None:
            raise OSError("no pipe")
        try:
            process.stdin.write(json.dumps(spec).encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        except (BrokenPipeError, ConnectionResetError):
            return b""
        return line if line.endswith(b"\n") else b""

    def _end(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()  # it holds nothing

    async def close(self) -> None:
        for drawing in self._kept.values():
            drawing.cancel()
        process = self._process
        self._end()
        if process is not None:
            await process.wait()
