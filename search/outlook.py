"""What a search would do, before anybody pays for it: how large its space is, and what it holds.

It must not know how candidates are proposed or evaluated. Next: `search_spec.py`.
"""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass

from .errors import SpecError
from .search_spec import SearchSpec
from .space import SPACES, Space
from .spec import ArchSpec
from .spelling import canonical
from .tasks import TASKS

SAMPLES = 3
TRIES = 60  # draws until there are so many


@dataclass(frozen=True)
class Plan:
    """How many settings the part of the space has that is searched, a few of its architectures, and
    the operations that training one of these takes, on average; 0 if nothing is trained or nobody
    knows."""

    settings: int
    samples: tuple[ArchSpec, ...]
    training_flops: float


def plan_of(spec: SearchSpec) -> Plan:
    """Raises SpecError if the space holds nothing for the task."""
    task = TASKS.load(spec.task)
    space = spec.part_of(SPACES.load(spec.space).fitted(task.signature))
    rng = random.Random(spec.seed)
    found: dict[str, ArchSpec] = {}
    why = SpecError(f"the space {spec.space!r} holds nothing for this task", "space")
    for _ in range(TRIES):
        try:
            made = canonical(space.decode(space.sample(rng), task.signature))
        except SpecError as error:
            why = error
            continue
        found.setdefault(made.fingerprint(), made)
        if len(found) == SAMPLES:
            break
    if not found:
        raise why
    flops = statistics.fmean(_training(spec, sample) for sample in found.values())
    return Plan(count_settings(space), tuple(found.values()), flops)


def count_settings(space: Space) -> int:
    """Of a space; without its rules if these leave too many to count."""
    try:
        return space.size()
    except SpecError:
        return space.combinations()


def _training(spec: SearchSpec, sample: ArchSpec) -> float:
    """Operations of the whole training, with every rate; 0 if none is wanted or it is by time."""
    from .evaluate import schedule  # loads torch, which whoever reads a plan does not need

    budget = spec.training()
    if "quality" not in spec.objectives or budget.unit == "seconds":
        return 0.0
    steps = schedule.plan(budget, sample, spec.batch).steps
    return float(steps * len(spec.rates or (0,)) * schedule.step_flops(sample, spec.batch))
