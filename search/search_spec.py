"""`SearchSpec`: one search as data. What is wrong with it is said before anything runs.

It must not know torch, ray or optuna: clients and the server check specs without them.
Next: `run/loop.py` runs one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import one_line
from .errors import SpecError, UnknownNameError
from .objective import metric_named
from .propose import SAMPLERS
from .space import SPACES, Space
from .spec import Scalar
from .spec_json import canonical_json, parse_json
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
}


@dataclass(frozen=True)
class SearchSpec:
    """What to search, for what, and how much it may cost.

    `trials` distinct architectures of `space` are trained on `task` for `steps` steps of `batch`
    examples each (the budget is stated in steps, never in seconds) and measured with `threads`
    threads, compiled for `target` (as `formwright.compiler.Options.target`). `timeout_s` ends a
    trial that takes longer; `attempts` bounds how often one is tried whose worker died. `knobs`
    keep the search in a part of its space: "depth=2", "width=16|32". Raises
    SpecError if a value is impossible, UnknownNameError for a metric that is not known; the other
    names are checked by `check_names`, where the search is to run.
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

    def __post_init__(self) -> None:
        for field in ("space", "task", "sampler", "target"):
            name = getattr(self, field)
            if not isinstance(name, str) or not NAME.fullmatch(name):
                raise SpecError(f"wanted a name, got {one_line(repr(name), 80)}", field)
        for field, (low, high) in BOUNDS.items():
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise SpecError(f"wanted a whole number from {low} to {high}, got {value!r}", field)
        if not isinstance(self.objectives, tuple) or not self.objectives:
            raise SpecError(f"wanted one metric or more, got {self.objectives!r}", "objectives")
        for at, name in enumerate(self.objectives):
            metric_named(name, f"objectives[{at}]")
        if len(set(self.objectives)) < len(self.objectives):
            raise SpecError(f"a metric is there twice: {', '.join(self.objectives)}", "objectives")
        if not isinstance(self.knobs, tuple):
            raise SpecError(f"wanted a list, got {self.knobs!r}", "knobs")
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
        made = asdict(self) | {"objectives": list(self.objectives), "knobs": list(self.knobs)}
        if not self.knobs:
            del made["knobs"]  # as specs were written before there were any
        return made

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
        for name in ("objectives", "knobs"):
            if isinstance(given.get(name), list):
                given[name] = tuple(given[name])
        return cls(**given)

    @classmethod
    def from_json(cls, text: str) -> SearchSpec:
        """The inverse of `to_json`. Raises SpecError."""
        return cls.from_dict(parse_json(text))
