"""`Result`: the trials of a search, and which of them are best.

It must not know how they were run. Next: `front.py`, `hypervolume.py`, `show/summary.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from .errors import SpecError
from .front import UNNAMED, machine_of, pareto, same_machine
from .objective import METRICS, Metric, metric_named
from .reasons import commonest
from .search_spec import SearchSpec
from .span import Growing, Span
from .spec import ArchSpec
from .spec_json import fields_of, inside, list_of, parse_json
from .told import is_free, seconds_of
from .trial import Trial, TrialState
from .whole import write_whole

SCHEMA = 1  # of the file


@dataclass(frozen=True)
class Step:
    """After so many `evaluations`, which took so many `seconds` together (0 where they do not say),
    the `hypervolume` is a share of a box, from 0 to 1."""

    evaluations: int
    seconds: float
    hypervolume: float


@dataclass(frozen=True)
class Result:
    """What a search found so far."""

    spec: SearchSpec
    trials: tuple[Trial, ...]

    @property
    def succeeded(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state is TrialState.SUCCEEDED]

    @property
    def states(self) -> dict[TrialState, int]:
        """How many trials are in each state that there is one in."""
        found = Counter(trial.state for trial in self.trials)
        return {state: found[state] for state in TrialState if found[state]}

    @property
    def metrics(self) -> list[Metric]:
        """What the search looks for."""
        return [METRICS[name] for name in self.spec.objectives]

    @property
    def machines(self) -> list[str]:
        """The fingerprints of the machines whose latencies do not compare, the one with the most
        results first, `UNNAMED` for those that tell none; one without a name where latency does
        not count."""
        timed = any(metric.of_machine for metric in self.metrics)
        found = Counter((machine_of(trial) or UNNAMED) if timed else "" for trial in self.succeeded)
        return [machine for machine, _ in found.most_common()]

    def by_reason(self, state: TrialState, most: int = 3) -> list[tuple[str, int]]:
        """The commonest reasons for which trials are in `state`, with how many."""
        return commonest((t.error for t in self.trials if t.state is state and t.error), most)

    def front(self, objectives: Sequence[str] = (), machine: str = "") -> list[Trial]:
        """The trials that none other dominates, the best of the first objective first; the
        search's own objectives if none are named. Raises UnknownNameError for a metric that is
        not known, SpecError if latencies of several machines would be compared, unless `machine`
        says which count."""
        names = objectives or self.spec.objectives
        metrics = [metric_named(name, f"objectives[{at}]") for at, name in enumerate(names)]
        return pareto(same_machine(self.succeeded, metrics, machine), metrics)

    def best(self, metric: str = "") -> Trial | None:
        """The best trial by one metric, by the first objective if none is named; None if no trial
        succeeded."""
        front = self.front([metric or self.spec.objectives[0]])
        return front[0] if front else None

    def span(self, machine: str = "") -> Span:
        """The box from the best to the worst values that succeeded. Raises SpecError as `front`."""
        return Span.of(same_machine(self.succeeded, self.metrics, machine), self.metrics)

    def hypervolume(self, span: Span | None = None, machine: str = "") -> float:
        """The share of the box `span`, the result's own if none is given, that the front
        dominates, from 0 to 1; of more than three objectives an estimate, of a standard error of
        0.0035 at most (`sampled.py`). Results compare in one box only: that of all of them. Raises
        SpecError as `front`."""
        span = span or self.span(machine)
        if span.estimated:  # who is on the front need not be known
            return span.share(same_machine(self.succeeded, self.metrics, machine))
        return span.share(self.front(machine=machine))

    def growth(self, span: Span | None = None, machine: str = "") -> list[Step]:
        """The hypervolume after each trial that counts for the budget, in the order of their
        numbers; arguments and errors as `hypervolume`."""
        span = span or self.span(machine)
        wanted = same_machine(self.succeeded, self.metrics, machine)
        numbers = {trial.number for trial in wanted}
        growing = Growing(span)
        made: list[Step] = []
        seconds = 0.0
        for trial in self.trials:
            seconds += sum(seconds_of(trial).values())
            if trial.number in numbers:
                growing.add(trial)
            if trial.state.final and not is_free(trial):
                made.append(Step(len(made) + 1, seconds, growing.share))
        return made

    def to_json(self) -> str:
        """Everything, as text; `from_json` is the inverse."""
        rows = [_row(trial) for trial in self.trials]
        return json.dumps({"schema": SCHEMA, "spec": self.spec.to_dict(), "trials": rows})

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Raises SpecError with what is wrong, and where."""
        data = fields_of(parse_json(text), {"schema", "spec", "trials"}, "")
        if data["schema"] != SCHEMA:
            raise SpecError(f"wanted {SCHEMA}, got {data['schema']!r}", "schema")
        with inside("spec"):
            spec = SearchSpec.from_dict(data["spec"])
        made = []
        for at, row in enumerate(list_of(data["trials"], "trials")):
            with inside(f"trials[{at}]"):
                made.append(_trial(row))
        return cls(spec, tuple(made))

    def save(self, path: str | Path) -> Path:
        """Writes it, whole or not at all. Raises OSError."""
        return write_whole(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """What `save` wrote. Raises SpecError if the file is not that, OSError if it is not
        there."""
        with inside(str(path)):
            return cls.from_json(Path(path).read_text(encoding="utf-8"))


# field of a trial -> what it is in the file
KINDS: Mapping[str, type] = {
    "number": int,
    "params": dict,
    "architecture": dict,
    "state": str,
    "attempt": int,
    "rung": int,
    "values": dict,
    "details": dict,
    "error": str,
}


def _row(trial: Trial) -> dict[str, Any]:
    row = {field.name: getattr(trial, field.name) for field in fields(Trial)}
    whole = {name: dict(value) for name, value in row.items() if isinstance(value, Mapping)}
    return row | whole | {"architecture": trial.architecture.to_dict()}


def _trial(row: object) -> Trial:
    data = dict(fields_of(row, set(KINDS), ""))
    for name, kind in KINDS.items():
        if not isinstance(data[name], kind) or isinstance(data[name], bool):
            raise SpecError(f"wanted {kind.__name__}, got {data[name]!r}", name)
    if data["state"] not in TrialState.__members__:
        raise SpecError(f"wanted one of {', '.join(TrialState)}, got {data['state']!r}", "state")
    with inside("architecture"):
        architecture = ArchSpec.from_dict(data["architecture"])
    return Trial(**data | {"state": TrialState(data["state"]), "architecture": architecture})
