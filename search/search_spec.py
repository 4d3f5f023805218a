"""`SearchSpec`: one search as data. What is wrong with it is said before anything runs.

It must not know torch, ray or optuna: clients and the server check specs without them.
Next: `run/loop.py` runs one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, fields
from typing import Any

from ..errors import one_line
from .budget import Budget
from .errors import SpecError, UnknownNameError
from .objective import Constraint, metric_named
from .propose import SAMPLERS
from .space import SPACES, Space
from .spec import ArchSpec, Scalar
from .spec_json import canonical_json, inside, parse_json
from .tasks import TASKS

NAME = re.compile(r"[\w.:-]{1,100}", re.ASCII)
KNOB = re.compile(r"\w{1,100}=[^=]{1,200}")
# field -> (lowest, highest); whole numbers, both ends allowed
BOUNDS = {
    "trials": (1, 100_000),
    "steps": (1, 10_000_000),
    "batch": (1, 65_536),
    "threads": (1, 1_024),
    "attempts": (1, 100),
    "seed": (0, 2**63 - 1),
    "timeout_s": (1, 7 * 24 * 3600),
    "pretrain": (0, 10_000_000),
    "rungs": (1, 8),
    "keep": (2, 16),
    "seconds": (0, 2**31 - 1),
}
# field -> (lowest, highest); finite numbers
RANGES = {"audit": (0.0, 1.0), "flops": (0.0, 1e30)}
# field -> what it may be
WORDS = {"latency": ("whole", "layers"), "weights": ("own", "shared")}
LISTS = ("objectives", "knobs", "constraints", "baselines", "rates")
RATE = 6e-3


@dataclass(frozen=True)
class SearchSpec:
    """What to search, for what, and how much it may cost.

    `trials` distinct architectures of `space` are trained on `task` for `steps` steps of `batch`
    examples each (the budget is stated in steps, never in seconds) and measured with `threads`
    threads, compiled for `target` (as `formwright.compiler.Options.target`). `timeout_s` ends a
    trial that takes longer; `attempts` bounds how often one is tried whose worker died. `knobs`
    keep the search in a part of its space: "depth=2", "width=16|32".

    `constraints`, as "params<=2e4", are hard: who breaks one is never on the front, and what can be
    counted is decided before any training. `baselines` are architectures of your own (their JSON),
    tried first. `budget` states the training in another unit than steps: "2e6 tokens" (`Budget`).
    Each of `rates` is a learning rate that a candidate is trained with; the best counts.
    `pretrain` steps of self-supervised training on the task's inputs come before.

    With `rungs` above 1, training stops after 1/keep^(rungs-1), ..., 1/keep of the budget, and only
    the best 1/keep by Pareto rank go on, and whoever is not dominated; a share `audit` of those who
    were stopped is trained to the end, to see what was lost. `latency` "layers" predicts latencies
    from layers that are compiled once, and compiles whole models for the front only. `weights`
    "shared" judges candidates on the weights of one trained supernet. `seconds` and `flops` bound
    what all trials may spend on evaluation together; 0 is no bound.

    Raises SpecError if a value is impossible, UnknownNameError for a metric that is not known; the
    other names are checked by `check_names`, where the search is to run.
    """

    space: str = "metaformer"
    task: str = "digits"
    trials: int = 20
    objectives: tuple[str, ...] = ("quality", "latency_ms", "params")
    sampler: str = "tpe"
    seed: int = 0
    steps: int = 300
    batch: int = 64
    threads: int = 1
    target: str = "inductor"
    timeout_s: int = 900
    attempts: int = 3
    knobs: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()
    budget: str = ""
    rates: tuple[float, ...] = (RATE,)
    pretrain: int = 0
    rungs: int = 1
    keep: int = 3
    audit: float = 0.0
    latency: str = "whole"
    weights: str = "own"
    seconds: int = 0
    flops: float = 0.0

    def __post_init__(self) -> None:
        for field in ("space", "task", "sampler", "target"):
            name = getattr(self, field)
            if not isinstance(name, str) or not NAME.fullmatch(name):
                raise SpecError(f"wanted a name, got {one_line(repr(name), 80)}", field)
        for field, (low, high) in BOUNDS.items():
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise SpecError(f"wanted a whole number from {low} to {high}, got {value!r}", field)
        for field, (least, most) in RANGES.items():
            object.__setattr__(self, field, _number(getattr(self, field), least, most, field))
        for field, words in WORDS.items():
            if (word := getattr(self, field)) not in words:
                raise SpecError(f"wanted one of {', '.join(words)}, got {word!r}", field)
        for field in LISTS:
            if not isinstance(given := getattr(self, field), tuple):
                raise SpecError(f"wanted a list, got {given!r}", field)
        if not self.objectives:
            raise SpecError("wanted one metric or more, got none", "objectives")
        for at, name in enumerate(self.objectives):
            metric_named(name, f"objectives[{at}]")
        if len(set(self.objectives)) < len(self.objectives):
            raise SpecError(f"a metric is there twice: {', '.join(self.objectives)}", "objectives")
        for at, text in enumerate(self.knobs):
            if not isinstance(text, str) or not KNOB.fullmatch(text):
                said = one_line(repr(text), 80)
                raise SpecError(
                    f'wanted "name=value" or "name=value|value", got {said}', f"knobs[{at}]"
                )
        names = [text.partition("=")[0] for text in self.knobs]
        if len(set(names)) < len(names):
            raise SpecError(f"a knob is there twice: {', '.join(names)}", "knobs")
        object.__setattr__(self, "knobs", tuple(sorted(self.knobs)))
        self.kept()
        self.enqueued()
        if not self.rates:
            raise SpecError("wanted one learning rate or more, got none", "rates")
        rates = (_number(rate, 1e-9, 10.0, f"rates[{at}]") for at, rate in enumerate(self.rates))
        object.__setattr__(self, "rates", tuple(rates))
        if self.budget and self.steps != SearchSpec.steps:
            raise SpecError("steps are a budget too; state one of them", "budget")
        object.__setattr__(self, "budget", str(self.training()) if self.budget else "")

    def training(self) -> Budget:
        """What each candidate is trained for, with each rate."""
        return Budget.parse(self.budget) if self.budget else Budget(self.steps)

    def kept(self) -> list[Constraint]:
        return [Constraint.parse(c, f"constraints[{at}]") for at, c in enumerate(self.constraints)]

    def enqueued(self) -> list[ArchSpec]:
        found = []
        for at, text in enumerate(self.baselines):
            with inside(f"baselines[{at}]"):
                found.append(ArchSpec.from_json(text))
        return found

    def check_names(self) -> SearchSpec:
        """The spec itself, if its space, task and sampler are installed here, and its knobs those
        of the space. Raises SpecError. A client need not have what it names; whoever runs the
        search must."""
        SPACES.check(self.space, "space")
        if self.knobs:
            self.part_of(SPACES.load(self.space, "space"))
        TASKS.check(self.task, "task")
        SAMPLERS.check(self.sampler, "sampler")
        return self

    def part_of(self, space: Space) -> Space:
        """The part of the space that the knobs leave. Raises SpecError for a knob that it does not
        have, or a value that the knob does not take."""
        choices = {gene.name: gene.choices for gene in space.genes}
        kept: dict[str, list[Scalar]] = {}
        for at, text in enumerate(self.knobs):
            name, _, values = text.partition("=")
            if name not in choices:
                raise UnknownNameError(f"knob of {space.name}", name, choices, f"knobs[{at}]")
            known = {str(choice): choice for choice in choices[name]}
            for value in values.split("|"):
                if value not in known:
                    said = f"{value!r} is not one of {', '.join(known)}"
                    raise SpecError(said, f"knobs[{at}]")
                kept.setdefault(name, []).append(known[value])
        return space.restricted(**kept)

    def to_dict(self) -> dict[str, Any]:
        """What was not there at first is left out where it has its default, so that a spec has the
        text that it always had."""
        made = asdict(self) | {name: list(getattr(self, name)) for name in LISTS}
        first = list(made).index("knobs")
        later = [field for field in fields(self)[first:] if made[field.name] == _default(field)]
        return {name: value for name, value in made.items() if name not in {f.name for f in later}}

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces."""
        return canonical_json(self.to_dict())

    @classmethod
    def from_dict(cls, data: object) -> SearchSpec:
        """What is left out has its default. Raises SpecError with the field that is wrong."""
        known = {field.name for field in fields(cls)}
        if not isinstance(data, Mapping):
            raise SpecError(f"wanted an object with {', '.join(sorted(known))}, got {data!r}")
        for name in data:
            if name not in known:
                raise UnknownNameError("field", name, known)
        given = dict(data)
        for name in LISTS:
            if isinstance(given.get(name), list):
                given[name] = tuple(given[name])
        return cls(**given)

    @classmethod
    def from_json(cls, text: str) -> SearchSpec:
        """The inverse of `to_json`. Raises SpecError."""
        return cls.from_dict(parse_json(text))


def _number(value: object, least: float, most: float, field: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    made = float(value) if number else math.nan  # type: ignore[arg-type]
    if not least <= made <= most:
        raise SpecError(f"wanted a number from {least:g} to {most:g}, got {value!r}", field)
    return made


def _default(field: Field[Any]) -> object:
    return list(field.default) if isinstance(field.default, tuple) else field.default
