"""`Client`: the service in nouns; whoever uses it sees no message of the wire.

Next: `calls.py`, what is asked; `remote.py` and `local.py`, who answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ...search import ArchSpec, Plan, SearchSpec, TrialState
from .. import errors
from ..records import ArtifactRecord, Event, SearchRecord, TrialRecord
from ..settings import server_address, with_port
from . import calls
from .calls import Bounds, Call
from .downloads import Download, Part, check_folder, is_open
from .remote import Patience, Remote, Wire
from .trust import Trust

T = TypeVar("T")

AGAIN_S = 0.5  # between two attempts at a server that is away, by those who wait for it
LOOK_S = 0.5  # between two looks at an artefact that is being made

Told = Callable[[ArtifactRecord], None]


class Client:
    """A connection to a server, `host:port` (none given: what the settings say).

    Every call has a deadline of `timeout_s`, and is sent again a few times while the server is
    away; its effect is there once all the same. `watch`, `wait` and `fetch`, which take as long as
    they take, go on over a server that restarts and give up when it is away for `patience_s`.
    `trust` says whom it trusts and who it is; by default what the settings say.
    Safe to use from several threads. Raises what `formwright.service.errors` lists.
    """

    def __init__(
        self,
        server: str = "",
        *,
        trust: Trust | None = None,
        timeout_s: float = 30.0,
        patience_s: float = 60.0,
    ) -> None:
        address = with_port(server) if server else server_address()
        self._wire: Wire = Remote(address, timeout_s, trust or Trust.by_settings(address))
        self._patience_s = patience_s

    @classmethod
    def local(cls, database: str | Path) -> Client:
        """The same of a database, by path or URL, without a server. What is submitted waits for a
        scheduler of that database. Needs the extra `service`. Raises SetupError."""
        from .local import Local

        made = cls.__new__(cls)
        made._wire, made._patience_s = Local(str(database)), 0.0
        return made

    @property
    def server(self) -> str:
        """Who answers: `host:port`, or the database."""
        return self._wire.server

    # searches

    def submit(
        self,
        spec: SearchSpec,
        *,
        request_id: str = "",
        display_name: str = "",
        priority: int = 0,
    ) -> SearchRecord:
        """Queues a search. With the same `request_id` the same search comes back, so that a
        request whose answer was lost can be sent again."""
        return self._send(calls.submit(spec, request_id, display_name, priority))

    def plan(self, spec: SearchSpec) -> Plan:
        """What the search would do; nothing is made. Raises InvalidRequest as `submit` would."""
        return self._send(calls.plan(spec))

    def get(self, id: str) -> SearchRecord:
        return self._send(calls.get(id))

    def searches(self, filter: str = "", order_by: str = "") -> Iterator[SearchRecord]:
        """All that match, the newest first if no order is given; pages are fetched as they are
        needed."""
        yield from self._pages(calls.searches(filter, order_by))

    def update(
        self, id: str, *, revision: int = 0, request_id: str = "", **changes: Any
    ) -> SearchRecord:
        """Changes `display_name`, `priority`, `trials`, `seconds` or `flops`. Raises Stale if the
        search is not at this `revision` (0: any), NotAllowed if it has ended."""
        return self._send(calls.update(id, revision, request_id, changes))

    def cancel(self, id: str, *, request_id: str = "") -> SearchRecord:
        """Ends a search. Raises NotAllowed if it had ended by itself."""
        return self._send(calls.act("Cancel", id, request_id))

    def pause(self, id: str, *, request_id: str = "") -> SearchRecord:
        """Lets go of the workers until `resume`. Raises NotAllowed if the search has ended."""
        return self._send(calls.act("Pause", id, request_id))

    def resume(self, id: str, *, request_id: str = "") -> SearchRecord:
        """Queues a search that was paused. Raises NotAllowed if it has ended."""
        return self._send(calls.act("Resume", id, request_id))

    def delete(self, id: str, *, missing_ok: bool = False, request_id: str = "") -> None:
        """Removes a search that has ended. Raises NotAllowed if it has not."""
        self._send(calls.delete(id, missing_ok, request_id))

    def watch(self, id: str, after: int = 0) -> Iterator[Event]:
        """Every event after number `after`, each once and in order, until the search has ended."""
        seen = after
        begin = lambda: calls.watch(id, seen)  # noqa: E731
        for events in self._stream(begin):
            for event in events:
                seen = event.sequence
                yield event

    def wait(self, id: str) -> SearchRecord:
        """The search, once it has ended."""
        for _ in self.watch(id):
            pass
        return self._patiently(calls.get(id))

    # trials and what is best

    def trial(self, id: str, number: int) -> TrialRecord:
        return self._send(calls.trial(id, number))

    def trials(
        self, id: str, states: Sequence[TrialState] = (), *, filter: str = "", order_by: str = ""
    ) -> Iterator[TrialRecord]:
        """The trials of a search that match, by number if no order is given; pages are fetched as
        they are needed."""
        yield from self._pages(calls.trials(id, states, filter, order_by))

    def architecture(self, fingerprint: str) -> ArchSpec:
        return self._send(calls.architecture(fingerprint))

    def best(
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
        """The Pareto front of one search, or of all that match, the best of the first objective
        first; with `weights` the best by the weighted sum of these metrics, each scaled to what is
        compared. `bounds` is metric -> (lowest, highest), None for no bound."""
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
        return self._send(asked)

    # artefacts

    def keep(self, id: str, number: int, *, seeds: int = 0, request_id: str = "") -> ArtifactRecord:
        """Has a trial's architecture kept: trained with `seeds` seeds (0: as many as before, or
        3), proven and measured, by a scheduler. Raises NotAllowed if the trial did not succeed."""
        return self._send(calls.keep(id, number, seeds, request_id))

    def artifact(self, id: str, number: int) -> ArtifactRecord:
        """What is kept of a trial. Raises NotFound if nobody has asked for it."""
        return self._send(calls.artifact(id, number))

    def fetch(
        self,
        id: str,
        number: int,
        to: str | Path,
        *,
        seeds: int = 0,
        told: Told = lambda record: None,
    ) -> Path:
        """The artefact of a trial, as a folder that `formwright.search.load` reads: has it made if
        need be, waits, and downloads what of it is not there already. `told` hears of each change.
        Raises Failed if it cannot be made, InvalidRequest if the folder holds something
        else or somebody fetches to it now."""
        check_folder(to, self._known(id, number))
        record = self.keep(id, number, seeds=seeds)
        told(record)
        while is_open(record):
            time.sleep(LOOK_S)
            before, record = record, self._patiently(calls.artifact(id, number))
            if record != before:
                told(record)
        with closing(Download(to, record)) as download:
            for part in download.missing():
                while not part.is_there():
                    self._fetch(id, number, part)
            return download.finish()

    def _known(self, id: str, number: int) -> ArtifactRecord | None:
        try:
            return self.artifact(id, number)
        except errors.NotFound:
            return None

    def _fetch(self, id: str, number: int, part: Part) -> None:
        if part.offset < part.file.size:
            begin = lambda: calls.download(id, number, part.file.path, part.offset)  # noqa: E731
            for offset, data in self._stream(begin):
                part.add(offset, data)
        part.finish()

    def close(self) -> None:
        self._wire.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, call: Call[T]) -> T:
        return call.read(self._wire.unary(call.method, call.request))

    def _pages(self, call: Call[list[T]]) -> Iterator[T]:
        while True:
            page = self._wire.unary(call.method, call.request)
            yield from call.read(page)
            call.request.page_token = page.next_page_token
            if not page.next_page_token:
                return

    def _patiently(self, call: Call[T]) -> T:
        """For those who wait anyway."""
        patience = Patience(self._patience_s)
        while True:
            try:
                return self._send(call)
            except errors.Unavailable:
                if self._wire.closed or patience.is_over():
                    raise
                time.sleep(AGAIN_S)

    def _stream(self, begin: Callable[[], Call[T]]) -> Iterator[T]:
        """What a stream says; `begin` says how it goes on where the server was away meanwhile."""
        patience = Patience(self._patience_s)
        while True:
            call = begin()
            try:
                with closing(self._wire.stream(call.method, call.request)) as messages:
                    for message in messages:
                        patience.renew()
                        yield call.read(message)
                return
            except errors.Unavailable:
                if self._wire.closed or patience.is_over():
                    raise
                time.sleep(AGAIN_S)
