"""`to_study`: what a search has found as a study of Optuna, which its tools open.

Each trial keeps its number: one that has not ended is RUNNING there, for a study without it would
count others, and one that waits would be taken up by whoever goes on with the study. What Optuna
has no word for is in user attributes. It must not know how a study is written.
Next: `study_writer.py`; `optuna_study.py` has a space as samplers see it.
"""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as Optuna

from ..errors import SpecError
from ..front import machine_of
from ..objective import Metric
from ..result import Result
from ..search_spec import SearchSpec
from ..space import SPACES, OneOf, Space
from ..spec import Scalar
from ..told import rungs_of, seconds_of
from ..trial import Trial, TrialState
from .optuna_study import quietly
from .places import is_ordered
from .study_draft import Draft, check_name
from .study_writer import opened, written

Times = Mapping[int, tuple[datetime, datetime]]
Genes = Mapping[str, Scalar]
MARK = "formwright"  # the user attribute that each study has which we made: by which version

STATES = {
    TrialState.PENDING: Optuna.RUNNING,
    TrialState.RUNNING: Optuna.RUNNING,
    TrialState.SUCCEEDED: Optuna.COMPLETE,
    TrialState.PRUNED: Optuna.PRUNED,
    TrialState.FAILED: Optuna.FAIL,
}


def to_study(
    result: Result,
    storage: str | os.PathLike[str] | BaseStorage | None = None,
    name: str = "",
    *,
    times: Times | None = None,
    attrs: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> optuna.Study:
    """The study called `name` (made up if empty) in `storage`: a URL of a database, the file of a
    journal or of SQLite, a storage of Optuna, or memory if None. It is written whole or not at all
    (in a storage that is no database and no file: removed again).

    `times` say when trials were made and when they changed last, by number; else all ended now.
    `attrs` are user attributes of the study. With `replace` a study of that name goes, if it was
    made of the same search: its attribute `search` is the same. Raises SearchError if there is one
    that may not go, or the study cannot be written.
    """
    from ... import __version__

    check_name(name)
    trials = sorted(result.trials, key=lambda trial: trial.number)
    choices = _Choices(result.spec, trials)
    own = {
        MARK: __version__,
        "spec": result.spec.to_json(),
        "params_from": choices.source,
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "machines": sorted(filter(None, {machine_of(trial) for trial in trials})),
    }
    with quietly():
        frozen = _Frozen(result, choices, times or {})
        draft = Draft(
            name or f"no-name-{uuid.uuid4()}",
            [metric.direction.value for metric in result.metrics],
            [metric.name for metric in result.metrics],
            own | dict(attrs or {}),
            [frozen.of(trial) for trial in trials],
        )
        kept = opened(storage)
        written(kept, draft, _replaceable(draft) if replace else None)
        return optuna.load_study(study_name=draft.name, storage=kept.storage)


def _replaceable(new: Draft) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a study with these user attributes is an earlier one of the same search: by its id if
    it has one, for what a search may spend, and so its spec, can change."""
    by = "search" if new.user_attrs.get("search") else "spec"
    return lambda old: MARK in old and old.get(by) == new.user_attrs.get(by)


class _Choices:
    """What there was to choose from: as the space has it, or, where it is not installed here or is
    another by now, what the trials have chosen."""

    def __init__(self, spec: SearchSpec, trials: Sequence[Trial]) -> None:
        proposed = [trial for trial in trials if trial.params]
        self.source = "space"
        self._genes = {}
        self.active: Callable[[Genes], Genes] = lambda genes: genes
        try:
            space = spec.part_of(SPACES.load(spec.space, "space"))
            for trial in proposed:
                space.canonical(trial.params)
        except SpecError:
            self.source = "trials"
            self._genes = _seen(proposed)
            made = {name: _names(gene) for name, gene in self._genes.items()}
        else:
            space = _fitted(space, proposed)
            self._genes = {gene.name: gene for gene in space.genes}
            self.active = space.active
            made = {name: distribution_of(gene) for name, gene in self._genes.items()}
        self.distributions: dict[str, BaseDistribution] = made

    def params(self, genes: Genes) -> dict[str, Any]:
        """The genes that mean something, in Optuna's values."""
        chosen = self.active(genes) if genes else {}
        return {
            name: value if _are_different(self._genes[name].choices) else repr(value)
            for name, value in chosen.items()
        }


def _fitted(space: Space, trials: Sequence[Trial]) -> Space:
    """The part of the space that means something for the task, as the search has it."""
    signature = trials[0].architecture.signature if trials else None
    if signature is None:
        return space
    with suppress(SpecError):
        fitted = space.fitted(signature)
        for trial in trials:
            fitted.canonical(trial.params)
        return fitted
    return space


def _seen(trials: Sequence[Trial]) -> dict[str, OneOf]:
    found: dict[str, dict[str, Scalar]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            found.setdefault(name, {})[repr(value)] = value
    return {name: OneOf(name, tuple(dict(sorted(v.items())).values())) for name, v in found.items()}


def distribution_of(gene: OneOf) -> BaseDistribution:
    """Exactly the choices of a gene: numbers at equal distances in their order, others by name.

    >>> distribution_of(OneOf("width", (16, 32, 48)))
    IntDistribution(high=48, log=False, low=16, step=16)
    >>> distribution_of(OneOf("width", (16, 32, 64)))
    CategoricalDistribution(choices=(16, 32, 64))
    """
    first, *others = gene.choices
    kinds = {type(choice) for choice in gene.choices}
    if others and is_ordered(gene) and len(kinds) == 1:
        last, step = others[-1], others[0] - first  # type: ignore[operator]
        even = [first + at * step for at in range(len(gene.choices))] == list(gene.choices)  # type: ignore[operator]
        if step > 0 and even and kinds == {int}:
            return IntDistribution(first, last, step=step)  # type: ignore[arg-type]
        if step > 0 and even and math.isfinite(last):  # type: ignore[arg-type]
            return FloatDistribution(first, last, step=step)  # type: ignore[arg-type]
    return _names(gene)


def _names(gene: OneOf) -> BaseDistribution:
    different = _are_different(gene.choices)
    return CategoricalDistribution(gene.choices if different else [repr(c) for c in gene.choices])


def _are_different(choices: Sequence[Scalar]) -> bool:
    """Whether Optuna, which takes 1, 1.0 and True for equal, can tell them apart."""
    return len(set(choices)) == len(choices)


class _Frozen:
    """Trials in Optuna's words."""

    def __init__(self, result: Result, choices: _Choices, times: Times) -> None:
        self._metrics = result.metrics
        self._constraints = list(zip(result.spec.constraints, result.spec.kept(), strict=True))
        self._choices, self._times = choices, times
        self._now = datetime.now(UTC)

    def of(self, trial: Trial) -> FrozenTrial:
        state, values = STATES[trial.state], _values(trial, self._metrics)
        error = trial.error
        if state is Optuna.COMPLETE and values is None:  # which Optuna does not take
            missing = [m.name for m in self._metrics if not _finite(trial.values.get(m.name))]
            state, error = Optuna.FAIL, f"nothing was measured of {', '.join(missing)}"
        params = self._choices.params(trial.params)
        made = create_trial(
            state=state,
            values=values if state in (Optuna.COMPLETE, Optuna.PRUNED) else None,
            params=params,
            distributions={name: self._choices.distributions[name] for name in params},
            user_attrs=_attrs(trial, error),
            intermediate_values=self._steps(trial),
            constraints=self._broken(trial, state),
        )
        made.datetime_start, ended = self._when(trial)
        made.datetime_complete = ended if state.is_finished() else None
        return made

    def _when(self, trial: Trial) -> tuple[datetime, datetime]:
        """Local times, as Optuna has them."""
        took = timedelta(seconds=min(max(sum(seconds_of(trial).values()), 0), 1e8))
        start, end = self._times.get(trial.number, (self._now - took, self._now))
        return _naive(start), _naive(end)

    def _steps(self, trial: Trial) -> dict[int, float]:
        """Rung -> what it measured: where there is one objective only, for with several Optuna
        knows of no steps, and its samplers raise at pruned trials that have some."""
        if len(self._metrics) > 1 or not (rungs := rungs_of(trial)):
            return {}
        name = self._metrics[0].name
        last = trial.state is TrialState.SUCCEEDED and {trial.rung: trial.values.get(name)}
        found = {at: rung.get(name) for at, rung in enumerate(rungs)} | (last or {})
        return {at: float(v) for at, v in found.items() if v is not None and _finite(v)}

    def _broken(self, trial: Trial, state: Optuna) -> dict[str, float] | None:
        """Constraint -> how far it is from being kept, above 0 if it is broken. One that nobody
        could decide, by a latency that is predicted, counts as kept, as in the search; the quality
        of less training decides nothing."""
        if state not in (Optuna.COMPLETE, Optuna.PRUNED):
            return None
        found = {}
        for text, constraint in self._constraints:
            value = trial.values.get(constraint.metric)
            early = state is Optuna.PRUNED and constraint.metric == "quality"
            if early and constraint.broken(trial.values) != trial.error:
                continue
            if _finite(value) and value is not None:
                over = value - constraint.bound
                over = float(over if constraint.sign == "<=" else -over)
                found[text] = min(over, 0.0) if state is Optuna.COMPLETE else over
        return found or None


def _values(trial: Trial, metrics: Sequence[Metric]) -> list[float] | None:
    """None if one of them is missing."""
    found = [trial.values.get(metric.name) for metric in metrics]
    return [float(v) for v in found if v is not None] if all(map(_finite, found)) else None


def _attrs(trial: Trial, error: str) -> dict[str, Any]:
    """What Optuna has no word for."""
    rungs = rungs_of(trial)
    return {
        "number": trial.number,
        "state": trial.state.value,
        "attempt": trial.attempt,
        "rung": trial.rung,
        "fingerprint": trial.architecture.fingerprint(),
        "short": trial.architecture.short(),
        **({"machine": machine} if (machine := machine_of(trial)) else {}),
        **({"error": error} if error else {}),
        **({"rungs": rungs} if rungs else {}),
        **{f"metrics.{name}": float(v) for name, v in trial.values.items() if _finite(v)},
    }


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _naive(time: datetime) -> datetime:
    return time.astimezone().replace(tzinfo=None)
