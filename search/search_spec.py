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
from .space import SPACES
from .spec_json import canonical_json, parse_json
from .tasks import TASKS

NAME = re.compile(r"[\w.:-]{1,100}", re.ASCII)
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
    trial that takes longer; `attempts` bounds how often one is tried whose worker died. Raises
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

    def check_names(self) -> SearchSpec:
        """The spec itself, if its space, task and sampler are installed here. Raises
        UnknownNameError. A client need not have what it names; whoever runs the search must."""
        SPACES.check(self.space, "space")
        TASKS.check(self.task, "task")
        SAMPLERS.check(self.sampler, "sampler")
        return self

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"objectives": list(self.objectives)}

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
        if isinstance(given.get("objectives"), list):
            given["objectives"] = tuple(given["objectives"])
        return cls(**given)

    @classmethod
    def from_json(cls, text: str) -> SearchSpec:
        """The inverse of `to_json`. Raises SpecError."""
        return cls.from_dict(parse_json(text))
