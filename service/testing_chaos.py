"""Chaos: a real server whose parts are killed at random while clients submit, watch, cancel, pause
and query; and what must hold all the same.

    report = chaos(folder, {"server": 4, "scheduler": 3}, workers=0, seed=0)

Used by the tests in small and by benchmarks/chaos_service.py for hundreds of kills. It must not
know how a search works. Next: `testing_unit.py` runs the server, `testing_history.py` checks.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from ..errors import FormwrightError
from ..search import SearchSpec
from .client import Client
from .errors import NotAllowed, SetupError, Unavailable
from .settings import LEASE_S
from .store import open_store
from .testing_history import Journal, all_searches, differences, longest_still, read
from .testing_unit import Unit

T = TypeVar("T")

CLIENTS = 3
PATIENCE_S = 180.0  # for whatever must come
STUCK_S = LEASE_S + 30.0  # a lease, and a scheduler that starts on a machine that is busy
# between kills: in a start, and in the work
GAPS_S = ((0.05, 0.6), (0.6, 4.0), (4.0, 11.0), (6.0, 14.0))


@dataclass
class Report:
    """What was done, and everything that does not hold. `back_s` are the seconds from each end of
    a server to the next one that was SERVING, `gone_s` the longest that something lived on that
    should not have, `still_s` the longest in which no search moved and nobody was killed."""

    kills: dict[str, int] = field(default_factory=dict)
    searches: int = 0
    cancelled: int = 0
    finished: int = 0
    attempts: int = 0
    events: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    back_s: list[float] = field(default_factory=list)
    gone_s: float = 0.0
    still_s: float = 0.0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def spec_of(rng: random.Random) -> SearchSpec:
    """One that trains for a moment, or one that only counts, and so writes without a pause."""
    seed = rng.randrange(10**6)
    if rng.random() < 0.6:
        return SearchSpec(
            trials=rng.randint(3, 9),
            steps=3,
            batch=32,
            target="eager",
            objectives=("quality", "params"),
            attempts=100,
            seed=seed,
        )
    sampler = rng.choice(["random", "nsga2"])
    counts = ("params", "flops")
    return SearchSpec(trials=60, objectives=counts, sampler=sampler, attempts=100, seed=seed)


def chaos(
    folder: Path,
    kills: Mapping[str, int],
    *,
    workers: int,
    seed: int,
    database: str = "",
    searches: int = 3,
    gaps: tuple[tuple[float, float], ...] = GAPS_S,
    told: Callable[[str], None] = lambda line: None,
) -> Report:
    """Kills so many of each of `testing_unit.KINDS`, at times that `seed` draws; then all searches
    run to their ends; `searches` are open at once. On a `database` that is there already, or a new
    one in the folder. `told` gets a line now and then."""
    database = database or str(folder / "chaos.db")
    with_store = open_store(database)
    before = all_searches(with_store)
    with_store.close()
    journal, report, started = Journal(), Report(), time.monotonic()
    with Unit(database, folder / "server.log", workers=workers) as unit:
        if not unit.wait_serving(PATIENCE_S):
            raise SetupError(f"no server within {PATIENCE_S:g} s: {unit.bad_lines()[-1:]}")
        crowd = _Crowd(unit.address, journal, seed, searches)
        try:
            times = _kill(unit, kills, random.Random(seed), gaps, report, told)
            crowd.settle()
        finally:
            crowd.close()
        report.wrong += unit.stop()
    report.back_s, report.gone_s = unit.back_s, unit.undertaker.longest
    report.seconds = time.monotonic() - started
    _count(database, journal, before, times, report)
    return report


def _kill(
    unit: Unit,
    kills: Mapping[str, int],
    rng: random.Random,
    gaps: tuple[tuple[float, float], ...],
    report: Report,
    told: Callable[[str], None],
) -> list[datetime]:
    """When somebody was killed."""
    plan = [kind for kind, count in kills.items() for _ in range(count)]
    rng.shuffle(plan)
    times: list[datetime] = []
    for kind in plan:
        time.sleep(rng.uniform(*rng.choice(gaps)))
        until = time.monotonic() + PATIENCE_S
        while not unit.kill(kind):
            if time.monotonic() > until:
                raise SetupError(f"there was no {kind} to be killed for {PATIENCE_S:g} s")
            time.sleep(0.02)
        times.append(datetime.now(UTC))
        report.kills[kind] = report.kills.get(kind, 0) + 1
        if len(times) % 10 == 0:
            told(f"{len(times)} of {len(plan)} killed, {len(unit.back_s)} servers were up")
    return times


def _count(
    database: str, journal: Journal, before: set[str], kills: list[datetime], report: Report
) -> None:
    store = open_store(database)
    try:
        report.wrong += differences(store, journal, before)
        every = {id: read(store, id) for id in all_searches(store) - before}
    finally:
        store.close()
    report.searches, report.cancelled = len(every), len(journal.cancelled)
    report.calls = dict(journal.calls)
    for said in every.values():
        report.finished += sum(trial.state.final for trial in said.trials)
        report.attempts += sum(trial.attempt for trial in said.trials)
        report.events += len(said.events)
    report.still_s = longest_still({id: said.events for id, said in every.items()}, kills)
    if report.still_s > STUCK_S:
        report.wrong.append(f"no search moved for {report.still_s:.1f} s")


class _Crowd:
    """Clients that submit, cancel, pause and query until `settle`, and one that watches each search
    from its beginning to its end."""

    def __init__(self, address: str, journal: Journal, seed: int, searches: int) -> None:
        self._journal, self._at_once = journal, searches
        self._watched: dict[str, threading.Thread] = {}
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._clients = [Client(address, patience_s=PATIENCE_S) for _ in range(CLIENTS + 1)]
        self._threads = [
            threading.Thread(target=self._live, args=(client, random.Random(f"{seed} {at}")))
            for at, client in enumerate(self._clients[:CLIENTS])
        ]
        for thread in self._threads:
            thread.start()

    def _live(self, client: Client, rng: random.Random) -> None:
        while not self._stopping.wait(rng.uniform(0.1, 0.8)):
            act = rng.choices(
                [self._submit, self._query, self._again, self._pause, self._cancel],
                weights=[6, 12, 3, 1, 1],
            )[0]
            try:
                act(client, rng)
            except Exception as error:
                self._journal.wrong.append(f"{act.__name__}: {type(error).__name__}: {error}")

    def _insist(self, what: str, call: Callable[[], T]) -> T:
        """The answer, however often the server is away; all that changes anything has an id."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = call()
            except Unavailable:
                self._journal.calls[f"{what}, away"] += 1
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
            else:
                self._journal.calls[what] += 1
                return answer

    def _open(self, share: int | None = None) -> list[str]:
        """Those that have not ended; of these, if asked, one of five shares."""
        ended = self._journal.ended
        found = [id for id in list(self._watched) if id not in ended]
        return [id for id in found if share is None or int(id, 16) % 5 == share]

    def _submit(self, client: Client, rng: random.Random) -> None:
        with self._lock:
            if len(self._open()) >= self._at_once:
                return
            spec, request = spec_of(rng), uuid.uuid4().hex
            made = self._insist("submit", lambda: client.submit(spec, request_id=request))
            self._journal.asked[request] = made.id
            if made.spec != spec:
                self._journal.wrong.append(f"{made.id} is of another spec")
            watcher = threading.Thread(target=self._watch, args=(made.id,))
            self._watched[made.id] = watcher
            watcher.start()

    def _again(self, client: Client, rng: random.Random) -> None:
        """A request that was answered comes a second time, as after a lost answer."""
        if asked := list(self._journal.asked.items()):
            request, id = rng.choice(asked)
            spec = self._insist("get", lambda: client.get(id)).spec
            again = self._insist("resubmit", lambda: client.submit(spec, request_id=request))
            if again.id != id:
                self._journal.wrong.append(f"{request} made {id} and {again.id}")

    def _watch(self, id: str) -> None:
        seen = self._journal.seen.setdefault(id, [])
        try:
            for event in self._clients[-1].watch(id):
                seen.append(event.sequence)
        except FormwrightError as error:
            self._journal.wrong.append(f"watch {id}: {type(error).__name__}: {error}")
        else:
            self._journal.ended.add(id)

    def _query(self, client: Client, rng: random.Random) -> None:
        if not self._watched:
            return
        id = rng.choice(list(self._watched))
        for trial in self._insist("trials", lambda: list(client.trials(id))):
            self._journal.saw(trial)
        for trial in self._insist("best", lambda: client.best(id)):
            self._journal.saw(trial)
        known = list(self._journal.asked.values())
        listed = {search.id for search in self._insist("list", lambda: list(client.searches()))}
        if missing := set(known) - listed:
            self._journal.wrong.append(f"acknowledged and not listed: {sorted(missing)}")

    def _cancel(self, client: Client, rng: random.Random) -> None:
        if found := self._open(0):
            id, request = rng.choice(found), uuid.uuid4().hex
            with suppress(NotAllowed):  # it had ended
                self._insist("cancel", lambda: client.cancel(id, request_id=request))
                self._journal.cancelled.add(id)

    def _pause(self, client: Client, rng: random.Random) -> None:
        if found := self._open(1):
            id, request, other = rng.choice(found), uuid.uuid4().hex, uuid.uuid4().hex
            with suppress(NotAllowed):  # it had ended, or somebody has cancelled it
                self._insist("pause", lambda: client.pause(id, request_id=request))
                time.sleep(rng.uniform(0.0, 1.0))
                self._insist("resume", lambda: client.resume(id, request_id=other))

    def settle(self) -> None:
        """Nobody asks for more; waits until all searches have ended."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        until = time.monotonic() + PATIENCE_S
        for watcher in self._watched.values():
            watcher.join(max(0.0, until - time.monotonic()))
        for id in self._open():
            self._journal.wrong.append(f"the watch of {id} has not ended in {PATIENCE_S:g} s")

    def close(self) -> None:
        self._stopping.set()
        for client in self._clients:
            client.close()
        for thread in [*self._threads, *self._watched.values()]:
            thread.join(PATIENCE_S)
