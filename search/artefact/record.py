"""What `metrics.json` says: every number with what it depends on, and how to make it again.

    values, undefined     of the model that is kept, by the ids of METRICS
    validation, test      its scores there
    spread                of each number over all seeds
    seeds, failed_seeds   each training
    search                what the search had measured
    agreement             the proof
    recipe, data, machine, latency, decoding, versions, command

Pure, but for the versions. It must not know files. Next: `card.py` says it to people.
"""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ... import __version__
from ..describe import pattern
from ..evaluate.evaluator import Evaluation
from ..evaluate.machine import machine
from ..evaluate.score import Score
from ..front import machine_of
from ..search_spec import SearchSpec
from ..spec_json import canonical_json
from ..trial import Trial
from ..weights import SPEC
from .agreement import Agreement
from .figures import Figures
from .seeds import Grown, spread

SCHEMA = 1
PACKAGES = ("torch", "numpy", "safetensors", "scikit-learn")
CHOICE = (
    "trained once for each seed; kept is the model with the best score on the validation split, so "
    "that score flatters it a little: the mean over seeds is what to expect"
)
TEST = (
    "opened once, after the model was chosen, proven and measured; the models of all seeds were "
    "judged in that one look, and nothing was chosen by it"
)


@dataclass(frozen=True)
class Seed:
    """One training and what was measured of its model."""

    grown: Grown
    figures: Figures
    test: Score


@dataclass(frozen=True)
class Facts:
    """Everything there is to say. `evaluation` is that of the first seed; `failed` are the numbers
    of seeds that did not learn, with why; `again` is the score of the kept model, loaded, on the
    validation split."""

    spec: SearchSpec
    evaluation: Evaluation
    data: Mapping[str, str]
    trial: Trial | None
    seeds: Sequence[Seed]
    failed: Mapping[int, str]
    kept: Seed
    again: Score
    agreement: Agreement


def recorded(facts: Facts) -> dict[str, Any]:
    """JSON-ready."""
    kept, architecture = facts.kept, facts.evaluation.architecture
    values = {"quality": facts.again.quality, **kept.figures.values}
    of = {"fingerprint": architecture.fingerprint(), "short": architecture.short()}
    return {
        "schema": SCHEMA,
        "architecture": of | {"pattern": pattern(architecture)},
        "values": values,
        "undefined": dict(kept.figures.undefined),
        "validation": {"quality": facts.again.quality, **facts.again.details, "rule": CHOICE},
        "test": {"quality": kept.test.quality, **kept.test.details, "rule": TEST},
        "kept": kept.grown.number,
        "spread": _spread(facts.seeds),
        "seeds": [_seed(seed) for seed in facts.seeds],
        "failed_seeds": {str(number): why for number, why in facts.failed.items()},
        "search": _search(facts),
        "agreement": facts.agreement.to_dict(),
        "recipe": _recipe(facts.spec),
        "data": dict(facts.data),
        **kept.figures.record,
        "versions": _versions(),
        "command": command(facts),
    }


def command(facts: Facts) -> str:
    """Makes it again, from inside the folder."""
    given = shlex.quote(canonical_json(_recipe(facts.spec)))
    count = len(facts.seeds) + len(facts.failed)
    return f"formwright keep --spec {given} --architecture {SPEC} --seeds {count} --to ../again"


def _recipe(spec: SearchSpec) -> dict[str, Any]:
    """The parts of a search spec that say how one architecture is trained and measured; they are
    one themselves."""
    return {**json.loads(spec.recipe()), "space": spec.space, "timeout_s": spec.timeout_s}


def _seed(seed: Seed) -> dict[str, Any]:
    test = {"quality": seed.test.quality, **seed.test.details}
    values = {"quality": seed.grown.quality, **seed.figures.values}
    return {"number": seed.grown.number, **seed.grown.record, "values": values, "test": test}


def _spread(seeds: Sequence[Seed]) -> dict[str, Any]:
    """Of the quality, on both splits, and of every metric that all of them have."""
    rows = [
        {"quality": s.grown.quality, "test_quality": s.test.quality, **s.figures.values}
        for s in seeds
    ]
    names = [name for name in rows[0] if all(name in row for row in rows)]
    return {name: spread([row[name] for row in rows]) for name in names}


def _search(facts: Facts) -> dict[str, Any] | None:
    """`equal` says whether training with the seed of the search gave its quality again, bit for
    bit; None where it need not: another machine, a budget by the clock, a part of the training."""
    trial, evaluation = facts.trial, facts.evaluation
    if trial is None:
        return None
    here = machine(evaluation.threads, evaluation.target).fingerprint
    again = next((s.grown.quality for s in facts.seeds if s.grown.number == 0), None)
    comparable = (
        machine_of(trial) == here
        and trial.details.get("until") == 1
        and evaluation.budget.unit != "seconds"
    )
    return {
        "trial": trial.number,
        "state": str(trial.state),
        "values": dict(trial.values),
        "machine": machine_of(trial),
        "same_machine": machine_of(trial) == here,
        "quality_again": again,
        "equal": again == trial.values.get("quality") if comparable else None,
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "formwright": __version__}
    return found | {name: made for name in PACKAGES if (made := version_of(name))}


def version_of(package: str) -> str:
    """Of what is installed; empty if it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
