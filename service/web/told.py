"""What a trial tells of itself, laid out for a page.

Details come from whoever evaluates, a user's own code perhaps: what is not of the expected form is
shown as it is, among the others. It must not know pages. Next: `pages.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...search import METRICS, ArchSpec, BlockSpec
from ..records import TrialRecord

REPORT, SECONDS, RUNGS = "report", "seconds", "rungs"
DECLINED = ("where", "op", "source", "code", "reason")
# `formwright trials -o json` has all
LONGEST = 2000  # characters of a detail
MOST = 200  # rows of a table


@dataclass(frozen=True)
class Value:
    """A metric of a trial; `objective` says whether the search looks for it."""

    name: str
    value: float
    unit: str
    what: str
    objective: bool


@dataclass(frozen=True)
class Pass:
    """What a pass of the compiler did. It left `declined` sites as they are; `reasons` are rows of
    `DECLINED`, each with how often, the commonest first."""

    name: str
    sites: int
    rewritten: int
    ms: float | None
    declined: int
    reasons: Sequence[tuple[Sequence[str], int]]


@dataclass(frozen=True)
class Report:
    """What the compiler did with a trial's model."""

    graphs: str
    hash: str
    variants: Sequence[str]
    passes: Sequence[Pass]

    @property
    def declined(self) -> int:
        return sum(row.declined for row in self.passes)


@dataclass(frozen=True)
class Layer:
    """A line about a layer."""

    stage: int
    number: int
    width: int
    mixer: str
    channel: str
    norm: str
    residual: str


def values_of(trial: TrialRecord, objectives: Sequence[str]) -> list[Value]:
    """Objectives first, in their order; then what else was measured."""
    order = [*objectives, *METRICS, *trial.values]
    made = []
    for name in dict.fromkeys(order):
        if name in trial.values:
            known = METRICS.get(name)
            unit, what = (known.unit, known.what) if known else ("", "")
            made.append(Value(name, trial.values[name], unit, what, name in objectives))
    return made


def metrics_of(trials: Iterable[TrialRecord]) -> list[str]:
    """What some of them have measured, of what is known."""
    return [name for name in METRICS if any(name in trial.values for trial in trials)]


def seconds_of(trial: TrialRecord) -> list[tuple[str, float]]:
    """Stage of evaluation -> seconds."""
    found = trial.details.get(SECONDS)
    return sorted(_numbers(found).items(), key=lambda each: -each[1])


def rungs_of(trial: TrialRecord) -> list[dict[str, float]]:
    """What was measured on each rung that the trial went on from."""
    found = trial.details.get(RUNGS)
    return [_numbers(rung) for rung in found] if isinstance(found, list) else []


def report_of(trial: TrialRecord) -> Report | None:
    """The compiler's; None if there is none."""
    found = trial.details.get(REPORT)
    if not isinstance(found, Mapping) or not isinstance(found.get("passes"), list):
        return None
    variants = found.get("variants")
    rows = (
        [row for row in variants if isinstance(row, Mapping)] if isinstance(variants, list) else []
    )
    return Report(
        str(found.get("graphs", "")),
        str(found.get("graph_hash", "")),
        [
            f"graph {row.get('graph')}, {row.get('name')}: {row.get('state')}"
            for row in rows[:MOST]
            if isinstance(row, Mapping)
        ],
        [_pass(row) for row in found["passes"][:MOST] if isinstance(row, Mapping)],
    )


def _pass(row: Mapping[str, Any]) -> Pass:
    counts: dict[tuple[str, ...], int] = {}
    declined = row.get("declined")
    for site in declined if isinstance(declined, list) else []:
        if isinstance(site, Mapping):
            key = tuple(str(site.get(name, "")) for name in DECLINED)
            counts[key] = counts.get(key, 0) + 1
    numbers = _numbers(row)
    return Pass(
        str(row.get("name", "")),
        int(numbers.get("sites", 0)),
        int(numbers.get("rewritten", 0)),
        numbers.get("ms"),
        sum(counts.values()),
        sorted(counts.items(), key=lambda each: -each[1])[:MOST],
    )


def others_of(trial: TrialRecord) -> list[tuple[str, str]]:
    """Every other detail, one line each; those within one another with a dot."""
    laid_out = {REPORT: report_of(trial), SECONDS: seconds_of(trial), RUNGS: rungs_of(trial)}
    rows = []
    for name, value in trial.details.items():
        if not laid_out.get(name):
            rows += list(_lines(str(name), value, 0))
    return rows[:MOST]


def _lines(name: str, value: Any, depth: int) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping) and value and depth < 3:
        for part, each in value.items():
            yield from _lines(f"{name}.{part}", each, depth + 1)
        return
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    yield name, text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def layers_of(spec: ArchSpec) -> list[Layer]:
    """A line for each layer, of what is written in the spec."""
    return [
        Layer(
            s,
            at,
            stage.width,
            _block(layer.mixer),
            _block(layer.channel),
            _block(layer.norm),
            layer.residual,
        )
        for s, stage in enumerate(spec.stages)
        for at, layer in enumerate(stage.layers)
    ]


def _block(block: BlockSpec | None) -> str:
    if block is None:
        return "none"
    settings = ", ".join(f"{name} {value}" for name, value in block.settings)
    return f"{block.name}: {settings}" if settings else block.name


def _numbers(given: object) -> dict[str, float]:
    if not isinstance(given, Mapping):
        return {}
    numbers = ((name, value) for name, value in given.items() if type(value) in (int, float))
    return {str(name): float(value) for name, value in numbers if abs(value) < 1e300}
