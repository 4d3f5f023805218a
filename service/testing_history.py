"""What clients were told, and whether the store says the same in the end: nothing that was
acknowledged is lost, nothing is there twice, and every list agrees with every other.

It must not know servers or processes. Next: `testing_chaos.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from ..search import METRICS, TrialState
from .errors import NotFound
from .records import Event, Page, SearchRecord, SearchState, TrialRecord
from .store import Store
from .store.measured import Scope, undominated

PAGE = 200

Item = TypeVar("Item")


@dataclass
class Journal:
    """What was acknowledged. Threads may share it."""

    asked: dict[str, str] = field(default_factory=dict)  # request id -> search
    cancelled: set[str] = field(default_factory=set)
    finished: dict[tuple[str, int], TrialRecord] = field(default_factory=dict)
    seen: dict[str, list[int]] = field(default_factory=dict)  # search -> events of its watcher
    ended: set[str] = field(default_factory=set)  # whose watch has ended by itself
    calls: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def saw(self, trial: TrialRecord) -> None:
        """A trial that has ended, as a query showed it."""
        if trial.state.final:
            known = self.finished.setdefault((trial.search_id, trial.number), trial)
            if known != trial:
                self.wrong.append(f"trial {trial.number} of {trial.search_id} has changed")


@dataclass(frozen=True)
class Told:
    """All that a store says of one search."""

    search: SearchRecord
    events: list[Event]
    trials: list[TrialRecord]


def read(store: Store, id: str) -> Told:
    """Raises NotFound."""
    events: list[Event] = []
    while more := store.events(id, len(events), 1000):
        events += more
    trials = [*_pages(lambda token: store.list_trials(id, PAGE, token))]
    return Told(store.get_search(id), events, trials)


def all_searches(store: Store) -> set[str]:
    return {search.id for search in _pages(lambda token: store.list_searches(PAGE, token))}


def _pages(page: Callable[[str], Page[Item]]) -> Iterator[Item]:
    token = ""
    while True:
        found = page(token)
        yield from found.items
        token = found.next
        if not token:
            return


def differences(store: Store, journal: Journal, before: set[str]) -> list[str]:
    """All that does not hold; `before` are the searches that others had made."""
    wrong, made = list(journal.wrong), list(journal.asked.values())
    wrong += [f"{id} was made by two requests" for id, count in Counter(made).items() if count > 1]
    wrong += [f"{id}: nobody has asked for it" for id in all_searches(store) - before - {*made}]
    for id in made:
        try:
            told = read(store, id)
        except NotFound:
            wrong.append(f"{id} was acknowledged and is lost")
            continue
        said = [*_counted(told), *_numbered(told, journal), *_kept(told, journal)]
        said += _front(store, told)
        wrong += [f"{id}: {line}" for line in said]
    return wrong


def _counted(told: Told) -> Iterator[str]:
    states = Counter(trial.state for trial in told.trials)
    if told.search.counts != dict(states):
        yield f"counts {told.search.counts}, trials {dict(states)}"
    if told.search.state.final and any(not state.final for state in states):
        yield "has ended with trials that have not"
    if not told.search.state.final:
        yield f"has not ended: {told.search.state}"
    if told.search.state is SearchState.FAILED:
        yield f"has failed: {told.search.error}"
    numbers = [trial.number for trial in told.trials]
    if numbers != list(range(len(numbers))):
        yield f"trials {numbers}"
    if told.search.state is SearchState.SUCCEEDED:
        if len(numbers) != told.search.spec.trials:
            yield f"{len(numbers)} trials, wanted {told.search.spec.trials}"
        if len({trial.fingerprint for trial in told.trials}) != len(numbers):
            yield "an architecture is there twice"


def _numbered(told: Told, journal: Journal) -> Iterator[str]:
    """The events have no gap, tell each end once, and one who watched has seen each once."""
    numbers = [event.sequence for event in told.events]
    if numbers != list(range(1, told.search.last_sequence + 1)):
        yield f"events {numbers}, the last is {told.search.last_sequence}"
    seen = journal.seen.get(told.search.id, [])
    if told.search.id not in journal.ended:
        yield f"its watcher saw {len(seen)} events and no end"
    elif seen != numbers:
        yield f"its watcher saw {seen}, there are {len(numbers)}"
    by_trial: dict[int, list[TrialState]] = {}
    for event in told.events:
        if event.trial is not None:
            by_trial.setdefault(event.trial.number, []).append(event.trial.state)
    if by_trial.keys() != {trial.number for trial in told.trials}:
        yield "events of other trials than there are"
    for trial in told.trials:
        states = by_trial.get(trial.number, [])
        finals = [state for state in states if state.final]
        if finals != [trial.state] or states[-1:] != finals:
            yield f"trial {trial.number} is {trial.state}, its events say {states}"


def _kept(told: Told, journal: Journal) -> Iterator[str]:
    """What has ended has not changed since."""
    id, states = told.search.id, [event.state for event in told.events if event.state]
    finals = [state for state in states if state.final]
    if told.search.state.final and finals != [told.search.state]:
        yield f"is {told.search.state}, its events say {states}"
    if id in journal.cancelled and told.search.state is not SearchState.CANCELLED:
        yield f"was cancelled and is {told.search.state}"
    now = {trial.number: trial for trial in told.trials}
    for (search, number), trial in journal.finished.items():
        if search == id and _told(now.get(number)) != _told(trial):
            yield f"trial {number} was {_told(trial)}, is {_told(now.get(number))}"


def _told(trial: TrialRecord | None) -> object:
    """What must never change once it has ended."""
    return trial and (trial.state, trial.attempt, trial.fingerprint, dict(trial.values))


def _front(store: Store, told: Told) -> Iterator[str]:
    """The front that was kept up is the one that all trials make."""
    places, of = store.kept_front(told.search.id)
    kept = sorted(place.number for place in places)
    metrics = [METRICS[name] for name in told.search.spec.objectives]
    table = store.measured(Scope(search=told.search.id), metrics)
    anew = sorted(place.number for place in table.rows(undominated(table.costs)))
    succeeded = sum(trial.state is TrialState.SUCCEEDED for trial in told.trials)
    if kept != anew or of != succeeded:
        yield f"the front {kept} of {of} is kept, {anew} of {succeeded} is there"


def longest_still(told: Mapping[str, Sequence[Event]], kills: Sequence[datetime]) -> float:
    """Seconds, the most in which nothing happened though a search was waiting or running; after a
    kill they are counted from there."""
    every = sorted(
        ((event.time, id, event.state) for id, events in told.items() for event in events),
        key=lambda row: row[0],
    )
    is_open: dict[str, bool] = {}
    longest, since = 0.0, every[0][0] if every else None
    for time, id, state in every:
        if since is not None and any(is_open.values()):
            last = max((kill for kill in kills if since < kill < time), default=since)
            longest = max(longest, (time - last).total_seconds())
        since = time
        if state is not None:
            is_open[id] = state in (SearchState.QUEUED, SearchState.RUNNING)
    return longest
