"""What a search has found, for its page: the front, figures of it, and why trials failed.

Numbers of many trials are compared as columns; records are read of those that are shown. What was
made is kept until the search has a newer event. It must not know requests.
Next: `../store/measured.py`; `../../search/show/figures.py`, which makes the figures.
"""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...errors import unknown
from ...search import (
    METRICS,
    ArchSpec,
    BlockSpec,
    Figure,
    Metric,
    Result,
    StageSpec,
    Trial,
    TrialState,
    growth_figure,
    pareto_figures,
)
from ..errors import InvalidRequest, NotAllowed, NotFound
from ..records import SearchRecord, TrialRecord
from ..results import result_of
from ..store import Store
from ..store.measured import Place, Scope, Table, undominated

SHOWN = 200  # of a front
DRAWN = 1000  # trials of a figure
LOOKED_AT = 1000  # trials that failed, the latest
PAGE = 200
REASONS = 12
BLOCK = 1000
KEPT = 64  # figures and lists of failures
PATIENCE = 10.0  # times as long as it takes, before it is made anew
T = TypeVar("T")
NOTHING = ArchSpec(BlockSpec("none"), (StageSpec(1, ()),), BlockSpec("none"), BlockSpec("none"))


@dataclass(frozen=True)
class Front:
    """`places` of the `compared` trials that have succeeded, the first ones as records; of
    `machine` where several of `machines` have measured what does not compare. Where they have
    measured nothing that the search looks for, it may be of `all` of them."""

    trials: Sequence[TrialRecord]
    places: Sequence[Place]
    compared: int
    machine: str = ""
    machines: Sequence[str] = ()
    all: bool = False

    @property
    def size(self) -> int:
        """How many are on it."""
        return len(self.places)


@dataclass(frozen=True)
class Sent:
    """A figure as JSON, and the same compressed."""

    content: bytes
    packed: bytes


@dataclass(frozen=True)
class _Made:
    """Of a search as of event `sequence`; good enough `until` then."""

    made: Any
    sequence: int
    until: float


@dataclass(frozen=True)
class Failures:
    """`count` trials in `state` for one reason."""

    state: TrialState
    reason: str
    count: int


def front_of(store: Store, record: SearchRecord, machine: str = "") -> Front:
    """By the search's own objectives. Raises InvalidRequest for a machine that is not known."""
    if not machine:
        try:
            places, compared = store.kept_front(record.id)
            every = _clocked(store, record)
            shown = store.trials_at(places[:SHOWN])
            return Front(shown, places, compared, machines=every, all=len(every) > 1)
        except NotAllowed:  # there is one for each of several machines
            pass
    metrics = [METRICS[name] for name in record.spec.objectives]
    timed = any(metric.of_machine for metric in metrics)
    machines = sorted(store.measured(Scope(record.id), metrics).machines)
    if machine and machine not in machines:
        raise InvalidRequest(unknown("machine", machine[:100], machines), "machine")
    found = {
        name: store.measured(Scope(record.id, machine=name), metrics)
        for name in ([machine] if machine else machines)
    }
    chosen = max(found, key=lambda name: len(found[name]))
    best = list(found[chosen].rows(undominated(found[chosen].costs)))
    shown = store.trials_at(best[:SHOWN])
    return Front(shown, best, len(found[chosen]), chosen, machines, all=not timed)


def _clocked(store: Store, record: SearchRecord) -> Sequence[str]:
    """Those that have measured something that does not compare between machines; none where the
    search looks for such a thing, which has one front for each."""
    if any(METRICS[name].of_machine for name in record.spec.objectives):
        return ()
    found = set[str]()
    for metric in METRICS.values():
        if metric.of_machine:
            found |= store.measured(Scope(record.id), [metric]).machines
    return sorted(found)


class Kept:
    """What was made of searches, as they were at some event. Of one that goes on it is made anew
    only after a multiple of the time that it takes: what comes back is `(made, fresh)`, and whoever
    got one that is not fresh should ask again. Thread safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock, self._clock = threading.Lock(), clock
        self._made: OrderedDict[Hashable, _Made] = OrderedDict()
        self._making: dict[Hashable, threading.Event] = {}

    def figure(
        self, store: Store, record: SearchRecord, front: Front, kind: str, x: str, y: str
    ) -> tuple[Sent, bool]:
        """A figure of the table `FIGURES`, fit to be sent. Raises NotFound while there is none."""
        if kind not in FIGURES:
            raise NotFound(f"there is no figure {kind[:50]!r}")
        key = ("figure", record.id, front.machine, kind, x, y)
        make = FIGURES[kind]
        made, fresh = self._get(key, record, lambda: _sent(make(store, record, front, x, y)))
        if made is None:
            raise NotFound("nothing has succeeded yet")
        return made, fresh

    def failures(self, store: Store, record: SearchRecord) -> tuple[Sequence[Failures], bool]:
        """The commonest reasons of those that failed or were pruned last."""
        return self._get(("failures", record.id), record, lambda: _failures(store, record))

    def _get(self, key: Hashable, record: SearchRecord, make: Callable[[], T]) -> tuple[T, bool]:
        while True:
            with self._lock:
                now, before = self._clock(), self._made.get(key)
                making = self._making.get(key)
                if before is not None:
                    fresh = before.sequence == record.last_sequence
                    if fresh or making is not None or now < before.until:
                        self._made.move_to_end(key)
                        return before.made, fresh
                if making is None:  # one makes it, and those who have nothing older wait
                    making = self._making[key] = threading.Event()
                    break
            making.wait()
        try:
            made = make()
            ended = self._clock()
            with self._lock:
                until = ended + PATIENCE * (ended - now)
                self._made[key] = _Made(made, record.last_sequence, until)
                while len(self._made) > KEPT:
                    self._made.popitem(last=False)
        finally:  # if it has failed, the next one tries
            with self._lock:
                del self._making[key]
            making.set()
        return made, True


def _sent(figure: Figure | None) -> Sent | None:
    if figure is None:
        return None
    content = json.dumps({"plot": figure.plot(), "said": figure.said}).encode()
    return Sent(content, gzip.compress(content, 5, mtime=0))


def _front(store: Store, record: SearchRecord, front: Front, x: str, y: str) -> Figure | None:
    """Two metrics of all that have them, or the history of one."""
    pair = [METRICS[name] for name in dict.fromkeys((y, x))]
    found, machine = _comparable(store, record, front, pair)
    if not len(found):
        return None
    numbers = _numbers(found)
    of_front = np.isin(numbers, [place.number for place in front.places])
    members, others = np.flatnonzero(of_front), np.flatnonzero(~of_front)
    # the front before the others, and both from the first trial to the last
    first = _thinned(members, DRAWN)
    rest = _thinned(others, DRAWN - len(first))
    stairs = _thinned(undominated(found.costs), DRAWN) if len(pair) > 1 else []
    wanted = sorted({*first, *rest, *stairs})
    read = {trial.number: trial for trial in store.trials_at(list(found.rows(wanted)))}

    def of(rows: Iterable[int]) -> list[TrialRecord]:
        return [trial for at in rows if (trial := read.get(int(numbers[at])))]

    (figure,) = pareto_figures(of(sorted({*first, *rest})), of(first), pair, of(stairs))
    said = [figure.said, f"Of the machine {machine}, as latencies do not compare." * bool(machine)]
    if left_out := len(found) - len(first) - len(rest):
        hidden = len(members) - len(first)
        on_front = f", {hidden:,} of them on the front" if hidden else ""
        said.append(f"{left_out:,} more are not drawn{on_front}.")
    return replace(figure, said=" ".join(filter(None, said)))


def _comparable(
    store: Store, record: SearchRecord, front: Front, metrics: Sequence[Metric]
) -> tuple[Table, str]:
    """What has been measured of the metrics, and by which machine if it is not the front's: the
    one with the most results, where several do not compare."""
    found = store.measured(Scope(record.id, machine=front.machine), metrics)
    if len(found.machines) < 2 or not any(metric.of_machine for metric in metrics):
        return found, ""
    of = {m: store.measured(Scope(record.id, machine=m), metrics) for m in sorted(found.machines)}
    most = max(of, key=lambda machine: len(of[machine]))
    return of[most], most


def _numbers(found: Table) -> NDArray[np.int64]:
    """Of the trials of one search, row by row."""
    parts = [part.kept.numbers[part.chosen] for part in found.parts]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _thinned(rows: Sequence[int] | NDArray[np.int64], most: int) -> list[int]:
    """At most so many of them, evenly apart."""
    step = max(len(rows) / max(most, 1), 1.0)
    return [int(rows[int(at * step)]) for at in range(min(len(rows), most))]


def _grown(store: Store, record: SearchRecord, front: Front, x: str, y: str) -> Figure | None:
    """The hypervolume by the search's own objectives."""
    metrics = [METRICS[name] for name in record.spec.objectives]
    found = store.measured(Scope(record.id, machine=front.machine), metrics)
    return _growth(record, found) if len(found) else None


# figure -> how it is made
FIGURES: Mapping[str, Callable[[Store, SearchRecord, Front, str, str], Figure | None]] = {
    "front": _front,
    "growth": _grown,
}


def _growth(record: SearchRecord, found: Table) -> Figure:
    """The hypervolume after each trial, from those that may have joined the front."""
    numbers = _numbers(found)
    order = np.argsort(numbers)
    costs = found.costs[order]
    # the ends of the box in which it is measured count too
    wanted = {*_joining(costs), *costs.argmin(axis=0).tolist(), *costs.argmax(axis=0).tolist()}
    names = record.spec.objectives
    trials = []
    for at in sorted(wanted | {len(costs) - 1}):
        row = found.values[order[at]]
        values = {name: float(value) for name, value in zip(names, row, strict=True)}
        number = int(numbers[order[at]])
        trials.append(Trial(number, {}, NOTHING, TrialState.SUCCEEDED, values=values))
    plain = replace(record.spec, objectives=names)
    result = Result(plain, tuple(trials))
    span = result.span()
    steps = result.growth(span)
    after = [replace(s, evaluations=t.number + 1) for s, t in zip(steps, trials, strict=True)]
    figure = growth_figure({"The front": after}, estimated=span.estimated)
    across = figure.layout["xaxis"]
    named = {**across, "title": {**across["title"], "text": "Trials"}}
    return replace(
        figure,
        title="Hypervolume over trials",
        said=figure.said.replace("evaluations", "trials"),
        layout={**figure.layout, "xaxis": named, "showlegend": False},
    )


def _joining(costs: NDArray[np.float64]) -> list[int]:
    """Rows that none before them dominates. A block at once: most are behind the front so far."""
    front = np.empty((0, costs.shape[1]))
    joined: list[int] = []
    for begin in range(0, len(costs), BLOCK):
        block = costs[begin : begin + BLOCK]
        left = np.ones(len(block), bool)
        for member in front:
            left &= ~((block >= member).all(axis=1) & (block > member).any(axis=1))
        for at in np.flatnonzero(left):
            row = block[at]
            if ((front <= row).all(axis=1) & (front < row).any(axis=1)).any():
                continue
            beaten = (front >= row).all(axis=1) & (front > row).any(axis=1)
            front = np.vstack([front[~beaten], row])
            joined.append(begin + int(at))
    return joined


def _failures(store: Store, record: SearchRecord) -> Sequence[Failures]:
    made = []
    for state in (TrialState.FAILED, TrialState.PRUNED):
        if record.counts.get(state):
            result = result_of(record, _latest(store, record.id, state))
            commonest = result.by_reason(state, REASONS)
            made += [Failures(state, reason, count) for reason, count in commonest]
    return made


def _latest(store: Store, id: str, state: TrialState) -> list[TrialRecord]:
    found: list[TrialRecord] = []
    token = ""
    while len(found) < LOOKED_AT:
        page = store.list_trials(id, PAGE, token, [state], order_by="number desc")
        found += page.items
        token = page.next
        if not token:
            break
    return found
