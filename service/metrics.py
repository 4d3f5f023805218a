"""The numbers of a server, for Prometheus: what it counts, and what the store has when asked.

`FAMILIES` is all there is, with names of the usual kind: base units, `_total` for what only grows.
No label has a value from outside: no owner, no search. Counting is a few additions, for every call
does it; `prometheus_client` only writes the numbers down. Each server has its own, so that two in
one process do not mix. It must not know SQL, grpc or how it is asked. Next: `store/totals.py`.
"""

from __future__ import annotations

import platform
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from .. import __version__
from ..errors import FormwrightError
from . import logs

if TYPE_CHECKING:
    from .store.totals import Totals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LIMIT_S = 3.0  # for all that is asked of the store, so that an answer comes before a scraper goes
# seconds; the last bucket has no end
BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
          1.0, 2.5, 5.0, 10.0, 30.0)  # fmt: skip

Values = Mapping[tuple[str, ...], float]


@dataclass(frozen=True)
class Family:
    """One row. `name` is without the `_total` of a counter."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str

    @property
    def full(self) -> str:
        """As it is written, but for the parts of a histogram."""
        return self.name + ("_total" if self.kind == "counter" else "")


# fmt: off
_ROWS = (
    # counted here
    Family("formwright_calls", "counter", ("method", "code"), "Calls that have ended."),
    Family("formwright_call_duration_seconds", "histogram", ("method",),
           "How long they took; without watches, which last as long as a client wants."),
    Family("formwright_refusals", "counter", ("reason",), "Calls that were refused."),
    Family("formwright_calls_in_flight", "gauge", (), "Calls that are being answered."),
    Family("formwright_watch_messages", "counter", (), "Messages sent to watchers."),
    Family("formwright_watch_bytes", "counter", (), "Bytes sent to watchers."),
    # counted elsewhere in the server
    Family("formwright_watchers", "gauge", (), "Watches that are open."),
    Family("formwright_answer_lookups", "counter", ("result",),
           "Reads, and whether their answer was kept."),
    Family("formwright_scheduler_restarts", "counter", (),
           "Schedulers of this server that have ended by themselves."),
    Family("formwright_log_records", "counter", ("level",), "Lines that this process has logged."),
    # asked of the store
    Family("formwright_database_up", "gauge", (), "1 if the database has answered."),
    Family("formwright_database_size_bytes", "gauge", (), "What the database takes on its disk."),
    Family("formwright_searches", "gauge", ("state",), "Searches that there are."),
    Family("formwright_searches_oldest_queued_seconds", "gauge", (),
           "How long the search that has waited longest has been QUEUED without a change."),
    Family("formwright_trials", "gauge", ("state",), "Trials of the searches that there are."),
    Family("formwright_artifacts", "gauge", ("state",), "Artifacts that there are."),
    Family("formwright_leases", "gauge", ("of",), "Searches and artifacts that are held now."),
    Family("formwright_schema_info", "gauge", ("revision",), "The version of the tables."),
    Family("formwright_build_info", "gauge", ("version", "python"), "What runs here."),
)
# fmt: on
FAMILIES = {row.full: row for row in _ROWS}


class Metrics(Collector):
    """`totals` is asked of the store at each scrape, from a thread. `in_flight` is the caller's to
    change."""

    def __init__(self, totals: Callable[[], Totals]) -> None:
        self.in_flight = 0
        self._calls: Counter[tuple[str, ...]] = Counter()
        self._seconds: dict[str, tuple[list[int], list[float]]] = {}  # in each bucket; their sum
        self._refusals: Counter[str] = Counter()
        self._messages = self._bytes = 0
        self._lock = threading.Lock()  # a scrape is in another thread
        self._followed: dict[str, Callable[[], Values]] = {"formwright_log_records_total": _logged}
        self._store = _Asked(totals)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def ended(self, method: str, code: str, seconds: float | None) -> None:
        """A call; without its `seconds` where they say nothing."""
        with self._lock:
            self._calls[method, code] += 1
            if seconds is not None:
                known = self._seconds.get(method)
                if known is None:
                    known = self._seconds[method] = [0] * (len(BOUNDS) + 1), [0.0]
                known[0][bisect_left(BOUNDS, seconds)] += 1
                known[1][0] += seconds

    def refused(self, reason: str) -> None:
        """A call, for this reason."""
        with self._lock:
            self._refusals[reason] += 1

    def sent(self, size: int) -> None:
        """A message of so many bytes to one who watches."""
        with self._lock:
            self._messages += 1
            self._bytes += size

    def follow(self, full: str, ask: Callable[[], float | Values]) -> None:
        """A family of the table that somebody else counts: a number, or numbers by the values of
        its labels. `ask` is called from another thread at each scrape."""
        if full not in FAMILIES:
            raise KeyError(full)

        def values() -> Values:
            found = ask()
            return found if isinstance(found, Mapping) else {(): found}

        self._followed[full] = values

    def collect(self) -> Iterator[Metric]:
        """All families that have numbers, in the order of the table."""
        values = {name: ask() for name, ask in self._followed.items()}
        values |= self._store.values()
        build = (__version__, platform.python_version())
        values["formwright_build_info"] = {build: 1}
        with self._lock:
            counted: dict[str, Values] = {
                "formwright_calls_total": dict(self._calls),
                "formwright_refusals_total": {(k,): n for k, n in self._refusals.items()},
                "formwright_calls_in_flight": {(): self.in_flight},
                "formwright_watch_messages_total": {(): self._messages},
                "formwright_watch_bytes_total": {(): self._bytes},
            }
            seconds = {name: (list(n), s[0]) for name, (n, s) in self._seconds.items()}
        values |= counted
        for full, family in FAMILIES.items():
            if family.kind == "histogram":
                yield _histogram(family, seconds)
            elif full in values:
                yield _simple(family, values[full])

    def render(self) -> tuple[bytes, str]:
        """In Prometheus' text format, and the type of that. It may take `LIMIT_S` seconds, so call
        it from a thread; it does not fail because the database does."""
        return generate_latest(self._registry), CONTENT_TYPE

    def close(self) -> None:
        self._store.close()


class _Asked:
    """What the store has. Those who ask at the same time wait for one answer, for a while."""

    def __init__(self, totals: Callable[[], Totals]) -> None:
        self._totals = totals
        self._thread = ThreadPoolExecutor(1, "formwright-metrics")
        self._lock = threading.Lock()
        self._asking: Future[Totals] | None = None

    def values(self) -> dict[str, Values]:
        try:
            with self._lock:
                if self._asking is None or self._asking.done():
                    self._asking = self._thread.submit(self._totals)
                asking = self._asking
            found = asking.result(LIMIT_S)
        except (FormwrightError, TookTooLong, RuntimeError):  # the last: it is closed
            return {"formwright_database_up": {(): 0}}
        return {
            "formwright_database_up": {(): 1},
            "formwright_database_size_bytes": {(): found.size},
            "formwright_searches": _by_one(found.searches),
            "formwright_searches_oldest_queued_seconds": {(): found.oldest_queued_s},
            "formwright_trials": _by_one(found.trials),
            "formwright_artifacts": _by_one(found.artifacts),
            "formwright_leases": _by_one(found.leases),
            "formwright_schema_info": {(found.revision,): 1},
        }

    def close(self) -> None:
        self._thread.shutdown(wait=False)


def _by_one(counts: Mapping[str, int]) -> Values:
    return {(name,): count for name, count in counts.items()}


def _logged() -> Values:
    return _by_one(dict.fromkeys(("WARNING", "ERROR", "CRITICAL"), 0) | logs.counts())


def _simple(family: Family, values: Values) -> Metric:
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    made = kind(family.name, family.meaning, labels=family.labels)
    for labels, value in sorted(values.items()):
        made.add_metric(labels, value)
    return made


def _histogram(family: Family, seconds: Mapping[str, tuple[list[int], float]]) -> Metric:
    made = HistogramMetricFamily(family.name, family.meaning, labels=family.labels)
    names = [*(str(bound) for bound in BOUNDS), "+Inf"]
    for method, (counts, total) in sorted(seconds.items()):
        so_far, buckets = 0, []
        for name, count in zip(names, counts, strict=True):
            so_far += count
            buckets.append((name, so_far))
        made.add_metric([method], buckets, total)
    return made
