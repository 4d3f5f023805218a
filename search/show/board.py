"""`Board`: what is known of a search while it runs. Fed with every transition of every trial.

It reads no clock and draws nothing: whoever feeds it says when, in seconds of any one clock. It
counts as trials come: neither an event nor a frame looks at all of them.
Next: `live.py`, which shows one.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from statistics import fmean, median

from ..front import joins, machine_of, pareto
from ..objective import METRICS
from ..reasons import Reasons
from ..search_spec import SearchSpec
from ..span import Growing, Span, costs
from ..told import Told, answered_by, is_free, seconds_of
from ..trial import TrialState
from .tables import trial_line

RECENT = 20  # trials that say how long one takes
COLUMNS = 24  # of the curve of hypervolumes


class Board:
    """A search of `spec`, in `state` (words for people; `error` says what ended it)."""

    def __init__(self, spec: SearchSpec, state: str = "running") -> None:
        self.spec, self.state, self.error = spec, state, ""
        self.metrics = [METRICS[name] for name in spec.objectives]
        self._state_of: dict[int, TrialState] = {}
        self._states: Counter[TrialState] = Counter()
        self._free = 0
        self._reasons: dict[TrialState, Reasons] = defaultdict(Reasons)
        self._since: dict[int, float] = {}  # those that run
        self._ran: dict[int, float] = defaultdict(
            float
        )  # seconds, by trial, on the rungs that it has left
        self._took: deque[float] = deque(maxlen=RECENT)
        self._ended_at: deque[float] = deque(maxlen=RECENT + 1)
        self._most_at_once = 0
        self._spent = 0.0
        # by machine: latencies of several do not compare
        self._done: Counter[str] = Counter()
        self._first: dict[str, int] = {}  # the lowest number of a trial
        self._spans: dict[str, Span] = {}
        self._fronts: dict[str, list[Told]] = defaultdict(list)
        # who joined it, and after how many trials
        self._joined: dict[str, list[tuple[int, Told]]] = defaultdict(list)
        self._curve: list[float] | None = None

    def add(self, trial: Told, at: float | None = None) -> str:
        """Takes a transition that came at `at`, or before anybody looked (None). Returns a line
        about it, empty if it is of no interest by itself."""
        before = self._state_of.get(trial.number)
        if before is not None and before.final:  # told twice
            return ""
        self._state_of[trial.number] = trial.state
        self._states[trial.state] += 1
        if before is not None:
            self._states[before] -= 1
        since = self._since.pop(trial.number, None)
        if at is not None:
            if since is not None:
                self._ran[trial.number] += at - since
            if trial.state is TrialState.RUNNING:
                self._since[trial.number] = at
                self._most_at_once = max(self._most_at_once, len(self._since))
        if trial.state.final:
            self._end(trial, at)
        return trial_line(trial, self.spec.objectives)

    def _end(self, trial: Told, at: float | None) -> None:
        self._spent += sum(seconds_of(trial).values())
        self._free += is_free(trial)
        self._curve = None
        if trial.error:
            self._reasons[trial.state].add(trial.error)
        if at is not None:
            self._ended_at.append(at)
            took = self._ran.pop(trial.number, None)
            if took is not None and not answered_by(trial):
                self._took.append(took)
        if trial.state is TrialState.SUCCEEDED:
            self._compare(trial)

    def _compare(self, trial: Told) -> None:
        """A front changes only by who joins it, and who was pushed off stays off."""
        here = self._machine(trial)
        self._done[here] += 1
        self._first[here] = min(self._first.get(here, trial.number), trial.number)
        if costs(trial.values, self.metrics):
            known = self._spans.get(here)
            self._spans[here] = known.widened(trial) if known else Span.of([trial], self.metrics)
        if joins(trial, self._fronts[here], self.metrics):
            self._joined[here].append((self.ended, trial))

    def _machine(self, trial: Told) -> str:
        return machine_of(trial) if any(metric.of_machine for metric in self.metrics) else ""

    @property
    def counts(self) -> dict[TrialState, int]:
        return {state: self._states[state] for state in TrialState if self._states[state]}

    @property
    def ended(self) -> int:
        return sum(count for state, count in self._states.items() if state.final)

    @property
    def paid(self) -> int:
        """How much of the budget of trials has ended."""
        return self.ended - self._free

    @property
    def machines(self) -> list[str]:
        """Whose latencies do not compare, the one with the most results first: its front is the one
        that is shown. One without a name where latency does not count."""
        return sorted(self._done, key=lambda name: (-self._done[name], self._first[name]))

    @property
    def front(self) -> Sequence[Told]:
        """The best so far, the best of the first objective first."""
        return self._fronts[self.machines[0]] if self._done else []

    def joined(self, trial: Told) -> bool:
        """Whether it is on the front of its machine."""
        return any(member is trial for member in self._fronts.get(self._machine(trial), []))

    def reasons(self, state: TrialState, most: int = 3) -> list[tuple[str, int]]:
        """The commonest reasons for which trials ended in `state`, with how many."""
        return self._reasons[state].commonest(most)

    def rate(self) -> float | None:
        """Trials that end in a minute, of late; None until two have ended."""
        if len(self._ended_at) < 2 or self._ended_at[-1] <= self._ended_at[0]:
            return None
        return 60 * (len(self._ended_at) - 1) / (self._ended_at[-1] - self._ended_at[0])

    def left(self, now: float) -> float | None:
        """Seconds until the budget is spent, about: what the last trials took, for all that have
        not ended, as many at once as there were. None until one has ended."""
        if not self._took:
            return None
        # a straggler says nothing about the others, but the ladder's few long trials count
        each = median(self._took) if self.spec.rungs == 1 else fmean(self._took)
        running = [self._ran.get(n, 0.0) + now - since for n, since in self._since.items()]
        gone = sum(min(took, each) for took in running)
        work = each * (self.spec.trials - self.paid) - gone
        if self.spec.seconds:
            work = min(work, self.spec.seconds - self._spent)
        return max(work, 0.0) / self._most_at_once

    def curve(self) -> list[float]:
        """The hypervolume from the first to the last trial that has ended, in at most `COLUMNS`
        steps, as a share of the box that the results so far span; empty before two have joined
        the front."""
        if self._curve is None:
            self._curve = self._hypervolumes()
        return self._curve

    def _hypervolumes(self) -> list[float]:
        joined = self._joined[self.machines[0]] if self._done else []
        if len(joined) < 2:
            return []
        span = self._spans[self.machines[0]]
        shares: dict[int, float] = {}
        if span.estimated:  # in one pass: fronts of many objectives are long
            growing = Growing(span)
            shares = {0: 0.0}
            shares |= {n: growing.add(t) for n, (_, t) in enumerate(joined, 1)}
        made = []
        ended = self.ended
        columns = min(COLUMNS, ended)
        for column in range(1, columns + 1):
            count = sum(after <= ended * column / columns for after, _ in joined)
            if count not in shares:
                shares[count] = span.share(pareto([t for _, t in joined[:count]], self.metrics))
            made.append(shares[count])
        return made
