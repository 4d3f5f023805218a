"""`SearchSpec`: one search as data. What is wrong with it is said before anything runs.

It must not know torch, ray or optuna: clients and the server check specs without them.
Next: `run/loop.py` runs one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, fields
from typing import Any

from .budget import Budget
from .errors import SpecError, UnknownNameError
from .objective import Constraint
from .propose import SAMPLERS
from .search_checks import LISTS, checked, together
from .space import SPACES, Space
from .spec import ArchSpec, Scalar
from .spec_json import canonical_json, inside, parse_json
from .tasks import TASKS

# what the values of an architecture depend on
RECIPE = (
    *("task", "seed", "steps", "batch", "threads", "target"),
    *("budget", "rates", "pretrain", "weights"),
)
RATE = 6e-3


@dataclass(frozen=True)
class SearchSpec:
    """What to search, for what, and how much it may cost.

    `trials` distinct architectures of `space` are trained on `task` for `steps` steps of `batch`
    examples each (or for a `budget` in another unit) and measured with `threads`
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
    "shared" judges candidates on the weights of one trained supernet. `proxies` are scores without
    training that are kept beside the values, to see how well they rank. `seconds` and `flops` bound
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
    proxies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field, value in checked(self).items():
            object.__setattr__(self, field, value)
        self.kept()
        self.enqueued()
        together(self)
        object.__setattr__(self, "budget", str(self.training()) if self.budget else "")

    def training(self) -> Budget:
        """What each candidate is trained for, with each rate."""
        return Budget.parse(self.budget) if self.budget else Budget(self.steps)

    def recipe(self) -> str:
        """What the values of an architecture depend on, apart from the machine, as text."""
        made = {field.name: getattr(self, field.name) for field in fields(self)}
        return canonical_json({name: made[name] for name in RECIPE})

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


def _default(field: Field[Any]) -> object:
    return list(field.default) if isinstance(field.default, tuple) else field.default
