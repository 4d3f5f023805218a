"""`keep`: from an architecture to an artefact.

    train, once for each seed -> choose on validation -> write, load -> prove -> measure
    -> the test split, once -> metrics.json -> the folder gets its name

What is proven, measured and tested of the model that is kept is what was loaded from the folder,
not what was in memory. It must not know the command line. Next: `seeds.py`, `agreement.py`,
`figures.py`, `record.py`, `folder.py`.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import one_line
from .. import weights
from ..errors import EvaluationError, SearchError, SpecError
from ..evaluate.checkpoint import forget
from ..evaluate.evaluator import Evaluation, one_at_a_time
from ..evaluate.failure import Deadline, reason
from ..evaluate.latency import check_target
from ..evaluate.machine import using_threads
from ..evaluate.score import Score, chunk_of, judge
from ..evaluate.stages import Subject
from ..evaluate.train import Diverged
from ..model import Model
from ..search_spec import SearchSpec
from ..spec import ArchSpec
from ..spelling import canonical
from ..trial import Trial
from .agreement import Agreement, drawn, first, prove, same
from .card import card
from .figures import Figures, figures
from .folder import METRICS, README, REPORT, digests, load, making
from .record import Facts, Seed, recorded
from .seeds import Grown, chosen, evaluations, grow

MOST = 100  # seeds

Progress = Callable[[int, int, str], None]
"""How many steps are done, of how many, and what was done or comes next, in a line."""


@dataclass(frozen=True)
class Kept:
    """An artefact that was made: where it is, of what, and what its `metrics.json` says."""

    folder: Path
    architecture: ArchSpec
    metrics: Mapping[str, Any]


def keep(
    architecture: ArchSpec,
    spec: SearchSpec,
    folder: str | Path,
    *,
    seeds: int = 3,
    trial: Trial | None = None,
    progress: Progress = lambda done, of, what: None,
) -> Kept:
    """Trains `architecture` anew as the search `spec` does, once for each of `seeds` seeds, and
    makes an artefact of the model that is best on the validation split: `folder` holds it whole, or
    is as it was. `trial` is where the search found it; its values stand beside the new ones.

    The test split is opened once, after everything is chosen and measured. One artefact is made at
    a time in a process, and no candidate evaluated meanwhile. What a killed process has trained is
    not trained again.

    Raises SpecError for a folder that holds something, a wrong number of seeds, a task that is not
    known; EvaluationError with one line for people where it learns with no seed, cannot be
    compiled, takes too long, or says something else when compiled, in fp64 or loaded.
    """
    if type(seeds) is not int or not 1 <= seeds <= MOST:
        raise SpecError(f"wanted a whole number from 1 to {MOST}, got {seeds!r}", "seeds")
    architecture = canonical(architecture)
    all_seeds = evaluations(architecture, spec, seeds)
    try:
        with (
            one_at_a_time,
            making(folder) as half,
            using_threads(spec.threads),
            torch.random.fork_rng(devices=[]),
            torch.enable_grad(),
        ):
            check_target(spec.target)
            making_of = _Making(spec, all_seeds, trial, _Steps(progress, 2 * seeds + 2))
            metrics = making_of.into(half, Path(folder).absolute().name)
    except SearchError:
        raise
    except Exception as error:
        raise EvaluationError(reason(error)) from error
    for evaluation in all_seeds:
        forget(evaluation)
    return Kept(Path(folder), architecture, metrics)


@dataclass
class _Steps:
    """Tells how far it is."""

    progress: Progress
    of: int
    done: int = 0

    def next(self, what: str) -> None:
        self.progress(self.done, self.of, what)

    def ended(self, what: str) -> None:
        self.done += 1
        self.next(what)


class _Making:
    """Of one artefact, step by step; `evaluations` has one for each seed."""

    def __init__(
        self,
        spec: SearchSpec,
        evaluations: list[Evaluation],
        trial: Trial | None,
        steps: _Steps,
    ) -> None:
        self.spec, self.evaluations, self.trial, self.steps = spec, evaluations, trial, steps
        self.evaluation = evaluations[0]
        self.subject = Subject(self.evaluation, self._deadline())

    def into(self, half: Path, name: str) -> dict[str, Any]:
        """Everything, into the folder that will have this name; what `metrics.json` says."""
        grown, failed = self._grown()
        best = chosen(grown)
        model = self._loaded(half, best)
        # from here on the model that was loaded stands for the one that was chosen
        grown = [replace(one, model=model) if one is best else one for one in grown]
        agreement = self._proven(model)
        (again,) = self._judged("validation", [model])
        measured = [self._measured(one, len(grown)) for one in grown]
        tested = self._judged("test", [one.model for one in grown])  # the only look at it
        self.steps.ended("test split judged")
        made = [Seed(*parts) for parts in zip(grown, measured, tested, strict=True)]
        facts = Facts(
            spec=self.spec,
            evaluation=self.evaluation,
            data=self.subject.task.record(),
            trial=self.trial,
            seeds=made,
            failed=failed,
            kept=next(seed for seed in made if seed.grown.model is model),
            again=again,
            agreement=agreement,
        )
        (half / REPORT).write_text(_json(facts.kept.figures.report), encoding="utf-8")
        metrics = recorded(facts) | {"files": digests(half)}
        takes = self._example()[:1]
        with torch.no_grad():
            text = card(self.evaluation.architecture, metrics, name, takes, model(takes))
        (half / README).write_text(text, encoding="utf-8")
        (half / METRICS).write_text(_json(metrics), encoding="utf-8")
        load(half)
        return metrics

    def _grown(self) -> tuple[list[Grown], dict[int, str]]:
        """Every seed that learnt, and why others did not."""
        grown, failed, count = [], {}, len(self.evaluations)
        for at, evaluation in enumerate(self.evaluations):
            self.steps.next(f"training with seed {at + 1} of {count}")
            try:
                grown.append(one := grow(evaluation, at, self.subject))
            except Diverged as error:
                failed[at] = str(error)
                self.steps.of -= 1  # it will not be measured
                self.steps.ended(f"seed {at + 1} of {count}: {one_line(failed[at], 100)}")
            else:
                self.steps.ended(f"seed {at + 1} of {count}: quality {one.quality:.4g}")
        if not grown:
            raise EvaluationError(f"it learns with none of {count} seeds: {failed[0]}")
        return grown, failed

    def _loaded(self, half: Path, best: Grown) -> Model:
        """Written, and read again."""
        architecture = self.evaluation.architecture
        weights.save(half, architecture, best.model)
        (half / weights.WEIGHTS).chmod(stat.S_IMODE((half / weights.SPEC).stat().st_mode))
        spec, model = weights.load(half)
        if spec != architecture:
            raise EvaluationError("loaded, it is another architecture")
        for inputs in (self._example(), drawn(architecture, self.spec.batch)):
            same(model, best.model, inputs)
        return model

    def _proven(self, model: Model) -> Agreement:
        self.steps.next(f"comparing eager, fp64 and compiled for {self.spec.target}")
        agreement = prove(
            model,
            self.evaluation.architecture,
            self.subject.splits["validation"].inputs,
            batch=self.spec.batch,
            target=self.spec.target,
            threads=self.spec.threads,
            deadline=self._deadline(),
        )
        agreement.check()
        far = ", ".join(f"{law.what} within {law.relative:.1g}" for law in agreement.laws)
        self.steps.ended(far)
        return agreement

    def _measured(self, one: Grown, of: int) -> Figures:
        self.steps.next(f"measuring model {one.number + 1} of {of}")
        found = figures(one.model, self._example(), self.evaluation, self.subject)
        self.steps.ended(f"latency {found.values['latency_ms']:.4g} ms")
        return found

    def _judged(self, name: str, models: list[Model]) -> list[Score]:
        split, scores = self.subject.splits[name], []
        task, chunk = self.subject.task, chunk_of(self.evaluation.architecture)
        for model in models:
            score = judge(model, split, self._deadline(), score=task.score, chunk=chunk)
            if score is None:
                raise EvaluationError(f"what it says of the {name} split is not finite")
            scores.append(score)
        return scores

    def _example(self) -> Tensor:
        """Inputs of a call that is measured."""
        return first(self.subject.splits["validation"].inputs, self.spec.batch)

    def _deadline(self) -> Deadline:
        return Deadline.after(self.spec.timeout_s)


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=1, allow_nan=False) + "\n"
