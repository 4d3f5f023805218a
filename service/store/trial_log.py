"""`StoreLog`: the durable `TrialLog` of one claimed search. It passes `LogContract`, and appends
only while its claim is the newest one of a search that is running.

Next: `../../search/run/log.py` has the laws.
"""

from __future__ import annotations

import math

from sqlalchemy import func, select

from ...search import Fenced, Trial, follows, refused
from ..records import Claim
from .engine import Database, clock
from .queries import search_row, trials_of
from .schema import trials
from .writes import add_events, claimed_row, is_current, save_trial


class StoreLog:
    """See `TrialLog`. Threads may share it."""

    def __init__(self, database: Database, claim: Claim) -> None:
        self._database = database
        self._claim = claim

    def append(self, trial: Trial) -> None:
        """Durable when it returns. Raises Fenced, or ValueError for a value that is not finite;
        nothing has changed then."""
        for name, value in trial.values.items():
            if not math.isfinite(value):
                raise ValueError(f"trial {trial.number}: {name} is {value!r}, not a finite number")
        with self._database.write() as connection:
            key = claimed_row(connection, self._claim).key
            this = trials_of(connection, key, trials.c.number == trial.number)
            old = this[0] if this else None
            if old is None:
                last = select(func.max(trials.c.number)).where(trials.c.search_key == key)
                newest = connection.execute(last).scalar_one()
                expected = 0 if newest is None else newest + 1
                if trial.number != expected:
                    raise Fenced(f"trial {trial.number}: the next one is {expected}")
            if not follows(trial, old):
                raise Fenced(refused(trial, old))
            now = clock(connection)
            change = save_trial(connection, key, now, trial, known=old is not None)
            add_events(connection, key, now, [change])

    def history(self) -> list[Trial]:
        with self._database.read() as connection:
            return trials_of(connection, search_row(connection, self._claim.search.id).key)

    def wanted(self) -> bool:
        """Whether the search runs, and by this claim."""
        with self._database.read() as connection:
            return is_current(search_row(connection, self._claim.search.id), self._claim)
