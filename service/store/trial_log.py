"""`StoreLog`: the durable `TrialLog` of one claimed search. It passes `LogContract`, and appends
only while its claim is the newest one of a search that is running.

Next: `../../search/run/log.py` has the laws.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row

from ...search import (
    ArchSpec,
    Fenced,
    Measurement,
    Trial,
    answered,
    follows,
    machine_of,
    refused,
)
from ..records import Claim
from .engine import Database, clock
from .queries import measured_before, search_row, transitions, trials_of
from .writes import add_events, claimed_row, is_current, save_trial


class StoreLog:
    """See `TrialLog`. Threads may share it."""

    def __init__(self, database: Database, claim: Claim) -> None:
        self._database = database
        self._claim = claim
        self._lock = threading.Lock()
        self._known: tuple[dict[int, Trial], int] = ({}, -1)

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
            newest = self._newest(connection, row)
            now, changes = clock(connection), []
            for trial in appended:
                old = newest.get(trial.number)
                if old is None and trial.number != len(newest):
                    raise Fenced(f"trial {trial.number}: the next one is {len(newest)}")
                if not follows(trial, old):
                    raise Fenced(refused(trial, old))
                changes.append(save_trial(connection, row.key, now, trial, old))
                newest[trial.number] = trial
            add_events(connection, row.key, now, changes)
            last = row.last_sequence + len(changes)
        self._known = newest, last

    def _newest(self, connection: Connection, row: Row[Any]) -> dict[int, Trial]:
        """By number. What was read or written here is remembered until others write: their event
        would have moved the sequence."""
        known = self._known
        self._known = ({}, -1)  # whatever fails leaves nothing that may be wrong
        if known[1] == row.last_sequence:
            return known[0]
        return {trial.number: trial for trial in trials_of(connection, row.key)}

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

    def wanted(self) -> bool:
        """Whether the search runs, and by this claim."""
        with self._database.read() as connection:
            return is_current(search_row(connection, self._claim.search.id), self._claim)
