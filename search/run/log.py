"""`TrialLog`: where the trials of one search are kept. The log is the truth; whoever runs the
search can be lost at any moment and another goes on from it.

`MemoryLog` is the readable definition; `FileLog` and the service's store are durable. All pass
`LogContract` in `search/testing.py`. It must not know SQL. Next: `loop.py` writes one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Protocol

from ..errors import Fenced
from ..front import machine_of
from ..objective import Measurement
from ..result import Result
from ..search_spec import SearchSpec
from ..spec import ArchSpec
from ..trial import Trial, follows


class TrialLog(Protocol):
    """The laws:

    - `append(*trials)` either takes all of them in turn, each as the newest state of its number,
      durably, or raises Fenced and changes nothing. It takes exactly what `trial.follows` allows:
      numbers start at 0 without gaps, a final state is final, an older attempt is refused. So a
      result is recorded once, whatever was retried.
    - `history()` is the newest state of every trial, by number.
    - `events()` is everything that was appended, in that order. Details may be missing of what is
      not the newest of its number.
    - `answer(architecture, recipe, machine)` is what a trial of another search has measured for
      this architecture by this `SearchSpec.recipe()` on the machine of this fingerprint, if it
      succeeded and the log knows of it; its details say in `answered` where.
    - `renewed(spec)` is the spec of the search as it is now: what it may spend may have changed.
    - `wanted()` is False once the search was paused or cancelled; appending then raises Fenced.
    """

    def append(self, *trials: Trial) -> None: ...

    def history(self) -> list[Trial]: ...

    def events(self) -> list[Trial]: ...

    def answer(self, architecture: ArchSpec, recipe: str, machine: str) -> Measurement | None: ...

    def renewed(self, spec: SearchSpec) -> SearchSpec: ...

    def wanted(self) -> bool: ...


class MemoryLog:
    """A log in memory, for a search without a service. `pause()`, `resume()` and `cancel()` may
    come from any thread. It answers from the results of `earlier` searches."""

    def __init__(self, earlier: Iterable[Result] = ()) -> None:
        self._earlier: dict[tuple[str, str, str], Measurement] = {}
        for at, result in enumerate(earlier):
            for trial in result.succeeded:
                key = (trial.architecture.fingerprint(), result.spec.recipe(), machine_of(trial))
                self._earlier.setdefault(key, answered(trial, f"search {at}, trial {trial.number}"))
        self._trials: list[Trial] = []
        self._events: list[Trial] = []
        self._unwanted = ""
        self._lock = threading.RLock()

    def append(self, *trials: Trial) -> None:
        with self._lock:
            if self._unwanted:
                numbers = ", ".join(str(trial.number) for trial in trials)
                raise Fenced(f"trial {numbers}: the search was {self._unwanted}")
            self._append(trials)

    def _append(self, trials: Sequence[Trial], cancelled: bool = False) -> None:
        made = after(self._trials, trials)
        self._keep(trials, cancelled)
        self._trials = made
        self._events += trials

    def _keep(self, trials: Sequence[Trial], cancelled: bool = False) -> None:
        """Where a durable log writes them; what it raises, `append` raises. `cancelled` says that
        nothing comes after them."""

    def history(self) -> list[Trial]:
        with self._lock:
            return list(self._trials)

    def events(self) -> list[Trial]:
        with self._lock:
            return list(self._events)

    def answer(self, architecture: ArchSpec, recipe: str, machine: str) -> Measurement | None:
        return self._earlier.get((architecture.fingerprint(), recipe, machine))

    def renewed(self, spec: SearchSpec) -> SearchSpec:
        return spec

    def wanted(self) -> bool:
        return not self._unwanted

    def pause(self) -> None:
        """Whoever runs the search lets go of it; after `resume` it can go on."""
        self._unwanted = self._unwanted or "paused"

    def resume(self) -> None:
        if self._unwanted == "paused":
            self._unwanted = ""

    def cancel(self) -> None:
        """Ends the search: what has not ended is pruned."""
        with self._lock:
            if self._unwanted != "cancelled":
                open_ = [trial for trial in self._trials if not trial.state.final]
                self._append([t.pruned("the search was cancelled") for t in open_], cancelled=True)
            self._unwanted = "cancelled"


def answered(trial: Trial, where: str) -> Measurement:
    """What a trial has measured, as an answer to another search."""
    kept = {name: of for name, of in trial.details.items() if name not in ("audited", "rungs")}
    return Measurement(trial.values, {**kept, "answered": where})


def after(trials: Sequence[Trial], new: Iterable[Trial]) -> list[Trial]:
    """The newest states by number, once `new` were taken in turn. Raises Fenced where one cannot
    be."""
    made = list(trials)
    for trial in new:
        if trial.number > len(made):
            raise Fenced(f"trial {trial.number}: the next one is {len(made)}")
        old = made[trial.number] if trial.number < len(made) else None
        if not follows(trial, old):
            raise Fenced(refused(trial, old))
        made[trial.number : trial.number + 1] = [trial]
    return made


def refused(trial: Trial, old: Trial | None) -> str:
    """Why a log did not take an entry."""
    now = f"{old.state} in attempt {old.attempt} on rung {old.rung}" if old else "not there"
    then = f"{trial.state} in attempt {trial.attempt} on rung {trial.rung}"
    return f"trial {trial.number} is {now}; {then} cannot follow"
