"""`TrialLog`: where the trials of one search are kept. The log is the truth; whoever runs the
search can be lost at any moment and another goes on from it.

`MemoryLog` is the readable definition; the service's store is the durable one. Both pass
`LogContract` in `search/testing.py`. It must not know SQL. Next: `loop.py` writes one.
"""

from __future__ import annotations

import threading
from typing import Protocol

from ..errors import Fenced
from ..trial import Trial, follows


class TrialLog(Protocol):
    """The laws:

    - `append(trial)` either takes the trial as the newest state of its number, durably, or raises
      Fenced and changes nothing. It takes exactly what `trial.follows` allows: numbers start at 0
      without gaps, a final state is final, an older attempt is refused. So a result is recorded
      once, whatever was retried.
    - `history()` is the newest state of every trial, by number.
    - `wanted()` is False once the search was cancelled; appending then raises Fenced.
    """

    def append(self, trial: Trial) -> None: ...

    def history(self) -> list[Trial]: ...

    def wanted(self) -> bool: ...


class MemoryLog:
    """A log in memory, for a search without a service. `cancel()` may come from any thread."""

    def __init__(self) -> None:
        self._trials: list[Trial] = []
        self._wanted = True
        self._lock = threading.Lock()

    def append(self, trial: Trial) -> None:
        with self._lock:
            if not self._wanted:
                raise Fenced(f"trial {trial.number}: the search was cancelled")
            known = trial.number < len(self._trials)
            if trial.number > len(self._trials):
                raise Fenced(f"trial {trial.number}: the next one is {len(self._trials)}")
            old = self._trials[trial.number] if known else None
            if not follows(trial, old):
                raise Fenced(refused(trial, old))
            self._trials[trial.number : trial.number + 1] = [trial]

    def history(self) -> list[Trial]:
        with self._lock:
            return list(self._trials)

    def wanted(self) -> bool:
        return self._wanted

    def cancel(self) -> None:
        """Ends the search: what has not ended is pruned."""
        with self._lock:
            self._wanted = False
            self._trials = [
                trial if trial.state.final else trial.pruned("the search was cancelled")
                for trial in self._trials
            ]


def refused(trial: Trial, old: Trial | None) -> str:
    """Why a log did not take an entry."""
    now = f"{old.state} in attempt {old.attempt}" if old else "not there"
    return f"trial {trial.number} is {now}; {trial.state} in attempt {trial.attempt} cannot follow"
