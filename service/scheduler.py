"""The scheduler: a process of its own that claims searches from the store and runs them.

The server starts it and holds the other end of its standard input: when that closes, because the
server stopped or died, the scheduler lets go of its search and ends. Its lease keeps others away
while it works, and fences it when it is late. It must not know grpc. Next: `supervisor.py`, which
keeps one running; `formwright.search.drive`, which does the work.
"""

from __future__ import annotations

import argparse
import logging
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable

from ..errors import FormwrightError
from ..search import (
    ArchSpec,
    Fenced,
    Measurement,
    Pool,
    PoolError,
    SearchSpec,
    Trial,
    TrialState,
    drive,
    make_pool,
)
from . import logs
from .configured import taken
from .errors import DatabaseError, ServiceError, SetupError
from .keeper import Keepers
from .labels import labels
from .leases import follow_parent, leased
from .names import new_owner
from .records import Claim, SearchState
from .settings import LEASE_S, SETTINGS
from .store import Store, open_store

log = logging.getLogger("formwright.scheduler")

TIDY_S = 86_400.0
IDLE_S = 0.25  # how long a queued search may go unseen
LETTING_GO_S = 20.0  # after which a scheduler that was told to end is ended; what it left behind,
# its reaper ends


class Scheduler:
    """Runs one search at a time, each with `workers` workers that stay warm in between."""

    def __init__(
        self,
        store: Store,
        owner: str,
        workers: int,
        ray: str | None,
        retention_days: float = 0.0,
    ) -> None:
        self._store = store
        self._retention_days = retention_days
        self.owner = owner
        self._workers = workers
        self._ray = ray
        self._pool: tuple[int, Pool] | None = None
        self.stopping = threading.Event()
        self._tidy_at = 0.0

    def serve(self) -> None:
        """Until it is told to stop. Raises PoolError if there are no workers to be had."""
        try:
            while not self.stopping.is_set():
                claim = self._claim()
                if claim is None:
                    self._tidy()
                    self.stopping.wait(IDLE_S)
                else:
                    with labels(search=claim.search.id):
                        self._run(claim)
                    self._tidy()
        finally:
            try:
                if self._pool is not None:
                    self._pool[1].close()
            except OSError as error:  # Ray prints what is left, and nobody may read it any more
                log.warning("the workers are left to their reaper: %s", error)
            finally:
                self._store.release(self.owner)

    def _tidy(self) -> None:
        """Once a day, when there is nothing else to do, or a search has just ended: one who is busy
        for weeks tidies too."""
        if time.monotonic() < self._tidy_at:
            return
        self._tidy_at = time.monotonic() + TIDY_S
        try:
            self._store.forget_requests()
            self._forget_searches()
        except ServiceError as error:  # the next one may
            log.warning("%s", error)

    def _forget_searches(self) -> None:
        """What has ended so long ago that nobody wants it any more."""
        if not self._retention_days:
            return
        kept, size = self._store.retention, 0
        for removed in kept.searches(self._retention_days):
            size += removed.size
            log.info("search %s: removed, it is too old", removed.search_id)
            if self.stopping.is_set():
                return
        if size:
            kept.give_back()

    def _claim(self) -> Claim | None:
        try:
            return self._store.claim(self.owner, LEASE_S)
        except ServiceError as error:  # a database that is locked today may be free tomorrow
            log.warning("%s", error)
            return None

    def _run(self, claim: Claim) -> None:
        log.info("claimed, epoch %d", claim.epoch)
        kept = _Log(self._store, claim, self.stopping)
        try:
            with leased(lambda: self._store.renew(claim, LEASE_S), self.stopping):
                self._drive(claim, kept)
        except DatabaseError as error:  # its lease runs out, and somebody tries again
            log.warning("%s", error)
        except Fenced as error:
            log.info("left to others: %s", error)
        except PoolError as error:  # not the search's fault: it waits until there are workers
            self._end(claim, SearchState.QUEUED, f"no workers: {error}")
            raise
        except Exception as error:
            if not isinstance(error, FormwrightError):
                log.exception("the search failed")
            self._end(claim, SearchState.FAILED, f"{type(error).__name__}: {error}")

    def _drive(self, claim: Claim, kept: _Log) -> None:
        """To the end, by the budget that it has at the end."""
        spec, ended = claim.search.spec.check_names(), False
        while not ended:
            drive(spec, self._workforce(spec.threads), kept)
            if not kept.wanted():
                return
            state, error = _verdict(kept.history())
            ended = self._store.finish(claim, state, error, driven=spec)
            spec = kept.renewed(spec)

    def _end(self, claim: Claim, state: SearchState, error: str) -> None:
        try:
            self._store.finish(claim, state, error)
        except Fenced:
            log.info("ended by others meanwhile")
        except ServiceError as error:  # its lease runs out, and somebody tries again
            log.warning("%s", error)

    def _workforce(self, threads: int) -> Pool:
        if self._pool is None or self._pool[0] != threads:
            if self._pool is not None:
                self._pool[1].close()
            self._pool = None  # so that a pool that cannot be made leaves none
            self._pool = threads, make_pool(self._workers, threads, self._ray)
        return self._pool[1]


class _Log:
    """The store's log, which also ends when the scheduler is told to."""

    def __init__(self, store: Store, claim: Claim, stopping: threading.Event) -> None:
        self._log = store.log(claim)
        self._stopping = stopping

    def append(self, *trials: Trial) -> None:
        self._log.append(*trials)

    def history(self) -> list[Trial]:
        return self._log.history()

    def events(self) -> list[Trial]:
        return self._log.events()

    def answer(self, architecture: ArchSpec, recipe: str, machine: str) -> Measurement | None:
        return self._log.answer(architecture, recipe, machine)

    def renewed(self, spec: SearchSpec) -> SearchSpec:
        return self._log.renewed(spec)

    def wanted(self) -> bool:
        return not self._stopping.is_set() and self._log.wanted()


def _verdict(trials: list[Trial]) -> tuple[SearchState, str]:
    if any(trial.state is TrialState.SUCCEEDED for trial in trials):
        return SearchState.SUCCEEDED, ""
    why = f"; the last one: {trials[-1].error}" if trials else ""
    return SearchState.FAILED, f"none of {len(trials)} trials succeeded{why}"


def run_scheduler(
    database: str,
    workers: int,
    ray: str | None,
    owner: str = "",
    with_parent: bool = False,
    retention_days: float = 0.0,
) -> int:
    """The process, until it is told to end by SIGTERM or SIGINT, or by the end of its standard
    input `with_parent`. Exit code 0 then, 3 if it has no workers. Raises SetupError."""
    store = open_store(database)
    scheduler = Scheduler(store, owner or new_owner(), workers, ray, retention_days)
    if with_parent:
        follow_parent(scheduler.stopping.set, LETTING_GO_S)
    else:
        asked = _on_signal(scheduler.stopping.set)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: asked.put(None))
    keepers = Keepers(store, database, scheduler.owner, scheduler.stopping)
    try:
        with keepers:
            scheduler.serve()
    except PoolError as error:
        log.error("%s", error)
        return 3
    finally:
        store.close()
    return 0


def _on_signal(told: Callable[[], None]) -> queue.SimpleQueue[None]:
    """What a handler of signals may put something into: then it is told, in a thread. The handler
    itself may have interrupted who holds an Event's lock, and would wait for ever."""
    asked: queue.SimpleQueue[None] = queue.SimpleQueue()

    def wait() -> None:
        asked.get()
        told()

    threading.Thread(target=wait, name="formwright-signals", daemon=True).start()
    return asked


def main() -> int:
    """The process beside a server."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--owner", required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--ray")
    parser.add_argument("--retention-days", type=float, default=0.0)
    given = parser.parse_args()
    logs.set_up_as_told()
    try:
        database = taken(SETTINGS["database"])
        return run_scheduler(
            database,
            given.workers,
            given.ray,
            given.owner,
            with_parent=True,
            retention_days=given.retention_days,
        )
    except SetupError as error:
        log.error("%s", error)
        return 2


if __name__ == "__main__":
    sys.exit(main())
