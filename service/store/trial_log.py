"""`StoreLog`: the durable `TrialLog` of one claimed search. It passes `LogContract`, and appends
only while its claim is the newest one of a search that is running.

Next: `../../search/run/log.py` has the laws.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row

from ...search import (
    ArchSpec,
    Fenced,
    Measurement,
    SearchSpec,
    Trial,
    TrialState,
    answered,
    follows,
    machine_of,
    refused,
)
from ..records import Claim
from .before import measured_before
from .claims import claimed_row, is_current
from .engine import Database, clock
from .fronts import FrontKeeper
from .queries import readable, search_row, transitions, trials_of
from .writes import add_events, save_architectures, save_trial


@dataclass(frozen=True)
class _Known:
    """The newest of every trial by number, and the front, as of an event."""

    newest: dict[int, Trial]
    fronts: FrontKeeper
    sequence: int


class StoreLog:
    """See `TrialLog`. Threads may share it."""

    def __init__(self, database: Database, claim: Claim) -> None:
        self._database = database
        self._claim = claim
        self._lock = threading.Lock()
        self._known: _Known | None = None
        self._spec = (claim.search.spec.to_json(), claim.search.spec)

    def append(self, *appended: Trial) -> None:
        """Durable when it returns. Raises Fenced, or ValueError for a value that is not finite;
        nothing has changed then."""
        for trial in appended:
            for name, value in trial.values.items():
                if not math.isfinite(value):
                    said = f"{name} is {value!r}, not a finite number"
                    raise ValueError(f"trial {trial.number}: {said}")
        if not appended:
            return
        with self._lock:
            self._append(appended)

    def _append(self, appended: Sequence[Trial]) -> None:
        with self._database.write() as connection:
            row = claimed_row(connection, self._claim)
            known = self._read(connection, row)
            newest, fronts = known.newest, known.fronts
            now, changes, moves = clock(connection), [], []
            save_architectures(connection, [t for t in appended if t.number not in newest])
            for trial in appended:
                old = newest.get(trial.number)
                if old is None and trial.number != len(newest):
                    raise Fenced(f"trial {trial.number}: the next one is {len(newest)}")
                if not follows(trial, old):
                    raise Fenced(refused(trial, old))
                change = save_trial(connection, row.key, now, trial, old)
                newest[trial.number] = trial
                if trial.state is TrialState.SUCCEEDED:
                    change[1].update(fronts.tell(connection, row.key, trial))
                changes.append(change)
                moves.append((old.state.value if old else "", trial.state.value))
            add_events(connection, row.key, now, changes, moves)
        self._known = _Known(newest, fronts, row.last_sequence + len(changes))

    def _read(self, connection: Connection, row: Row[Any]) -> _Known:
        """What was read or written here is remembered until others write: their event would have
        moved the sequence."""
        known, self._known = self._known, None  # whatever fails leaves nothing that may be wrong
        if known is not None and known.sequence == row.last_sequence:
            return known
        newest = {trial.number: trial for trial in trials_of(connection, row.key)}
        fronts = FrontKeeper(self._claim.search.spec)
        fronts.read(connection, row.key, newest)
        return _Known(newest, fronts, row.last_sequence)

    def history(self) -> list[Trial]:
        with self._database.read() as connection:
            return trials_of(connection, search_row(connection, self._claim.search.id).key)

    def events(self) -> list[Trial]:
        with self._database.read() as connection:
            return transitions(connection, search_row(connection, self._claim.search.id).key)

    def answer(self, architecture: ArchSpec, recipe: str, machine: str) -> Measurement | None:
        fingerprint = architecture.fingerprint()
        with self._database.read() as connection:
            found = measured_before(connection, fingerprint, self._claim.search.id)
        for where, spec, trial in found:
            if spec.recipe() == recipe and machine_of(trial) == machine:
                return answered(trial, where)
        return None

    def renewed(self, spec: SearchSpec) -> SearchSpec:
        with self._database.read() as connection:
            text = search_row(connection, self._claim.search.id).spec
        if text != self._spec[0]:
            self._spec = text, readable("the spec", lambda: SearchSpec.from_json(text))
        return self._spec[1]

    def wanted(self) -> bool:
        """Whether the search runs, and by this claim."""
        with self._database.read() as connection:
            return is_current(search_row(connection, self._claim.search.id), self._claim)
