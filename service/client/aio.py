"""`AsyncClient`: what `Client` does, awaited.

It must not decide anything that `Client` does not: both send what `calls.py` makes.
Next: `sync.py`, which documents the methods.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ...search import ArchSpec, Plan, SearchSpec, TrialState
from .. import errors
from ..records import ArtifactRecord, Event, SearchRecord, TrialRecord
from ..settings import server_address, with_port
from . import calls
from .aio_wires import AsyncLocal, AsyncRemote, AsyncWire
from .calls import Bounds, Call
from .downloads import Download, Part, check_folder, is_open
from .remote import Patience
from .sync import AGAIN_S, LOOK_S, Told
from .trust import Trust

T = TypeVar("T")


class AsyncClient:
    """See `Client`; made and used in one event loop. What gives an iterator there gives an
    asynchronous one here."""

    def __init__(
        self,
        server: str = "",
        *,
        trust: Trust | None = None,
        timeout_s: float = 30.0,
        patience_s: float = 60.0,
    ) -> None:
        address = with_port(server) if server else server_address()
        self._wire: AsyncWire = AsyncRemote(address, timeout_s, trust or Trust.by_settings(address))
        self._patience_s = patience_s

    @classmethod
    def local(cls, database: str | Path) -> AsyncClient:
        """See `Client.local`. Opens the database at once, and so blocks for a moment."""
        from .local import Local

        made = cls.__new__(cls)
        made._wire, made._patience_s = AsyncLocal(Local(str(database))), 0.0
        return made

    @property
    def server(self) -> str:
        return self._wire.server

    # searches

    async def submit(
        self,
        spec: SearchSpec,
        *,
        request_id: str = "",
        display_name: str = "",
        priority: int = 0,
    ) -> SearchRecord:
        return await self._send(calls.submit(spec, request_id, display_name, priority))

    async def plan(self, spec: SearchSpec) -> Plan:
        return await self._send(calls.plan(spec))

    async def get(self, id: str) -> SearchRecord:
        return await self._send(calls.get(id))

    def searches(self, filter: str = "", order_by: str = "") -> AsyncIterator[SearchRecord]:
        return self._pages(lambda: calls.searches(filter, order_by))

    async def update(
        self, id: str, *, revision: int = 0, request_id: str = "", **changes: Any
    ) -> SearchRecord:
        return await self._send(calls.update(id, revision, request_id, changes))

    async def cancel(self, id: str, *, request_id: str = "") -> SearchRecord:
        return await self._send(calls.act("Cancel", id, request_id))

    async def pause(self, id: str, *, request_id: str = "") -> SearchRecord:
        return await self._send(calls.act("Pause", id, request_id))

    async def resume(self, id: str, *, request_id: str = "") -> SearchRecord:
        return await self._send(calls.act("Resume", id, request_id))

    async def delete(self, id: str, *, missing_ok: bool = False, request_id: str = "") -> None:
        await self._send(calls.delete(id, missing_ok, request_id))

    async def watch(self, id: str, after: int = 0) -> AsyncGenerator[Event, None]:
        seen = after
        async with aclosing(self._stream(lambda: calls.watch(id, seen))) as messages:
            async for events in messages:
                for event in events:
                    seen = event.sequence
                    yield event

    async def wait(self, id: str) -> SearchRecord:
        async for _ in self.watch(id):
            pass
        return await self._patiently(calls.get(id))

    # trials and what is best

    async def trial(self, id: str, number: int) -> TrialRecord:
        return await self._send(calls.trial(id, number))

    def trials(
        self, id: str, states: Sequence[TrialState] = (), *, filter: str = "", order_by: str = ""
    ) -> AsyncIterator[TrialRecord]:
        return self._pages(lambda: calls.trials(id, states, filter, order_by))

    async def architecture(self, fingerprint: str) -> ArchSpec:
        return await self._send(calls.architecture(fingerprint))

    async def best(
        self,
        id: str = "",
        *,
        objectives: Sequence[str] = (),
        bounds: Bounds | None = None,
        space: str = "",
        task: str = "",
        machine: str = "",
        weights: Mapping[str, float] | None = None,
        limit: int = 0,
    ) -> list[TrialRecord]:
        asked = calls.best(
            id,
            objectives=objectives,
            bounds=bounds,
            space=space,
            task=task,
            machine=machine,
            weights=weights,
            limit=limit,
        )
        return await self._send(asked)

    # artefacts

    async def keep(
        self, id: str, number: int, *, seeds: int = 0, request_id: str = ""
    ) -> ArtifactRecord:
        return await self._send(calls.keep(id, number, seeds, request_id))

    async def artifact(self, id: str, number: int) -> ArtifactRecord:
        return await self._send(calls.artifact(id, number))

    async def fetch(
        self,
        id: str,
        number: int,
        to: str | Path,
        *,
        seeds: int = 0,
        told: Told = lambda record: None,
    ) -> Path:
        check_folder(to, await self._known(id, number))
        record = await self.keep(id, number, seeds=seeds)
        told(record)
        while is_open(record):
            await asyncio.sleep(LOOK_S)
            before, record = record, await self._patiently(calls.artifact(id, number))
            if record != before:
                told(record)
        with closing(await asyncio.to_thread(Download, to, record)) as download:
            for part in await asyncio.to_thread(download.missing):
                while not await asyncio.to_thread(part.is_there):
                    await self._fetch(id, number, part)
            return download.finish()

    async def _known(self, id: str, number: int) -> ArtifactRecord | None:
        try:
            return await self.artifact(id, number)
        except errors.NotFound:
            return None

    async def _fetch(self, id: str, number: int, part: Part) -> None:
        if part.offset < part.file.size:
            begin = lambda: calls.download(id, number, part.file.path, part.offset)  # noqa: E731
            async with aclosing(self._stream(begin)) as pieces:
                async for offset, data in pieces:
                    part.add(offset, data)
        await asyncio.to_thread(part.finish)

    async def close(self) -> None:
        await self._wire.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _send(self, call: Call[T]) -> T:
        return call.read(await self._wire.unary(call.method, call.request))

    async def _pages(self, begin: Callable[[], Call[list[T]]]) -> AsyncIterator[T]:
        call = begin()
        while True:
            page = await self._wire.unary(call.method, call.request)
            for item in call.read(page):
                yield item
            call.request.page_token = page.next_page_token
            if not page.next_page_token:
                return

    async def _patiently(self, call: Call[T]) -> T:
        """For those who wait anyway."""
        patience = Patience(self._patience_s)
        while True:
            try:
                return await self._send(call)
            except errors.Unavailable:
                if self._wire.closed or patience.is_over():
                    raise
                await asyncio.sleep(AGAIN_S)

    async def _stream(self, begin: Callable[[], Call[T]]) -> AsyncGenerator[T, None]:
        """What a stream says; `begin` says how it goes on where the server was away meanwhile."""
        patience = Patience(self._patience_s)
        while True:
            call = begin()
            try:
                async with aclosing(self._wire.stream(call.method, call.request)) as messages:
                    async for message in messages:
                        patience.renew()
                        yield call.read(message)
                return
            except errors.Unavailable:
                if self._wire.closed or patience.is_over():
                    raise
                await asyncio.sleep(AGAIN_S)
