"""What a trial tells of itself beside its values: the one place that reads `details`.

Details come from whoever evaluates, a user's own code perhaps: what is not of the expected form
counts as not told. It must not know how anything is shown. Next: `result.py`, `fidelity.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .spec import ArchSpec
from .trial import TrialState


class Told(Protocol):
    """A trial, as far as people see it: the search's own, or a service's record of one."""

    @property
    def number(self) -> int: ...

    @property
    def state(self) -> TrialState: ...

    @property
    def architecture(self) -> ArchSpec: ...

    @property
    def values(self) -> Mapping[str, float]: ...

    @property
    def details(self) -> Mapping[str, Any]: ...

    @property
    def error(self) -> str: ...


def seconds_of(trial: Told) -> dict[str, float]:
    """Stage of evaluation -> seconds spent on it, over all rungs; empty if it does not say, or if a
    stored result answered."""
    return {} if answered_by(trial) else _numbers(trial.details.get("seconds"))


def answered_by(trial: Told) -> str:
    """Which trial of another search has measured this one; empty if it was measured here."""
    return str(trial.details.get("answered", ""))


def flops_of(trial: Told) -> float:
    """Operations that training it has taken; 0 if it does not say."""
    flops = trial.details.get("training_flops")
    return float(flops) if _finite(flops) else 0.0  # type: ignore[arg-type]


def rungs_of(trial: Told) -> list[dict[str, float]]:
    """What was measured on each rung that the trial went on from, the first rung first."""
    rungs = trial.details.get("rungs")
    return [_numbers(rung) for rung in rungs] if isinstance(rungs, list | tuple) else []


def stopped_on(trial: Told) -> int | None:
    """The rung after which the ladder stopped the trial; None if it did not."""
    rung = trial.details.get("stopped") if trial.state is TrialState.PRUNED else None
    return rung if isinstance(rung, int) else None


def is_audited(trial: Told) -> bool:
    """Whether the ladder has stopped the trial, which went on all the same, to see what is lost."""
    return "audited" in trial.details


def is_free(trial: Told) -> bool:
    """Whether it cost no training and came to nothing, and so counts for no budget of trials."""
    untrained = "quality" not in trial.values or bool(answered_by(trial))
    return trial.state is TrialState.PRUNED and untrained and stopped_on(trial) is None


def proxies_of(trial: Told) -> dict[str, float]:
    """Name -> score without training."""
    return _numbers(trial.details.get("proxies"))


def machine_told(trial: Told) -> dict[str, str]:
    """What its machine is, and what is installed there: name -> text."""
    machine = trial.details.get("machine")
    if not isinstance(machine, Mapping):
        return {}
    return {str(name): str(value) for name, value in machine.items() if value not in (None, "")}


@dataclass(frozen=True)
class PassTold:
    """What a pass of our compiler did: how many sites it saw and rewrote, and the code of the
    reason why each of the others was left."""

    name: str
    sites: int
    rewritten: int
    declined: tuple[str, ...]


def passes_of(trial: Told) -> list[PassTold]:
    """What the compiler's report says, of the passes that saw something; empty without one."""
    report = trial.details.get("report")
    rows = report.get("passes") if isinstance(report, Mapping) else None
    made = []
    for row in rows if isinstance(rows, list | tuple) else ():
        if isinstance(row, Mapping) and _finite(row.get("sites")) and row["sites"] > 0:
            left = row.get("declined")
            left = left if isinstance(left, list | tuple) else ()
            codes = (str(one.get("code", "")) for one in left if isinstance(one, Mapping))
            rewritten = int(row["rewritten"]) if _finite(row.get("rewritten")) else 0
            made.append(
                PassTold(str(row.get("name", "")), int(row["sites"]), rewritten, tuple(codes))
            )
    return made


def _numbers(given: object) -> dict[str, float]:
    if not isinstance(given, Mapping):
        return {}
    return {str(name): float(value) for name, value in given.items() if _finite(value)}


def _finite(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)  # type: ignore[arg-type]
