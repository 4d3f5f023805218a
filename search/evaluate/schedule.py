"""How long a training is, and the learning rate at each moment of it.

A budget in tokens or operations becomes a number of steps before training, counted from the spec;
one in seconds is followed by the clock. It must not know how a step is made. Next: `train.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..budget import Budget
from ..cost import cost_of
from ..layout import lay_out
from ..search_spec import RATE
from ..spec import ArchSpec

WARM_UP = 0.1  # of the steps
BACKWARD = 3  # forward passes that a step is worth: backward is two products for each of forward
TICKS = 1000  # steps that a training by the clock is taken for, where its rate is asked


@dataclass(frozen=True)
class Plan:
    """The whole of a training: so many `steps`, or so many `seconds` if that is not 0."""

    steps: int
    seconds: float = 0.0

    def over(self, until: float, step: int, elapsed_s: float) -> bool:
        """Whether the share `until` of it is done after `step` steps and this time; the first step
        always belongs to it."""
        if self.seconds:
            return step > 0 and elapsed_s >= until * self.seconds
        return step >= max(1, round(until * self.steps))

    def rate(self, highest: float, step: int, elapsed_s: float) -> float:
        """The learning rate of the step after `step` steps and this time."""
        if self.seconds:
            tick = min(int(TICKS * elapsed_s / self.seconds), TICKS - 1)
            return rate(tick, TICKS, highest)
        return rate(min(step, self.steps - 1), self.steps, highest)


def plan(budget: Budget, spec: ArchSpec, batch: int) -> Plan:
    """The steps that the budget pays for: those that it pays whole, and one at least. Tokens are
    those of the first stage. Raises SpecError for a spec that cannot be built."""
    if budget.unit == "seconds":
        return Plan(0, budget.amount)
    if budget.unit == "steps":
        return Plan(max(1, round(budget.amount)))
    tokens = lay_out(spec).stages[0].site.tokens
    each = tokens * batch if budget.unit == "tokens" else step_flops(spec, batch)
    return Plan(max(1, math.floor(budget.amount / max(1, each))))


def step_flops(spec: ArchSpec, batch: int) -> int:
    """Operations of one step of training, forward and backward, as `Budget` counts them."""
    return BACKWARD * cost_of(spec).flops * batch


def rate(step: int, steps: int, highest: float = RATE) -> float:
    """A linear warm-up, then a cosine down to zero.

    >>> [round(rate(step, 100, 1.0), 2) for step in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return highest * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return highest * (1 + math.cos(math.pi * done)) / 2
