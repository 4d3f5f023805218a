"""How the hypervolume grew: of a search, of others beside it in the same box, and of its own trials
in a random order.

It must not know how curves are drawn. Next: `../span.py`; `picture.py` and `figures.py` draw them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import SpecError
from ..front import same_machine
from ..result import Result, Step
from ..span import Span, in_orders
from ..told import is_free
from ..trial import Trial

Beside = Mapping[str, Result] | Sequence[Result]
ORDERS = 100  # random ones
WORK = 20_000  # trials in all orders together
FEWEST = 20  # orders that say something
LOW, HIGH = 0.05, 0.95  # of the orders


@dataclass(frozen=True)
class Growths:
    """A curve a search, the search itself first, by name; all in the box `span`, of `machine`."""

    curves: Mapping[str, Sequence[Step]]
    span: Span
    machine: str


def growths(result: Result, beside: Beside = ()) -> Growths:
    """Searches that have no other name are called by their sampler. Raises SpecError if nothing
    succeeded, if the searches have not the same objectives, or if their latencies are of different
    machines."""
    if not result.succeeded:
        raise SpecError("no trial succeeded: there is nothing to draw")
    machine, metrics = result.machines[0], result.metrics
    named = _named(result, beside)
    everything: list[Trial] = []
    for name, other in named:
        if set(other.spec.objectives) != set(result.spec.objectives):
            wanted, got = ", ".join(result.spec.objectives), ", ".join(other.spec.objectives)
            raise SpecError(f"{name}: wanted a search for {wanted}, got one for {got}", "beside")
        found = same_machine(other.succeeded, metrics, machine)
        if other.succeeded and not found:
            raise SpecError(f"{name}: its latencies are not of the machine {machine}", "beside")
        everything += found
    span = Span.of(everything, metrics)
    return Growths({name: other.growth(span, machine) for name, other in named}, span, machine)


def _named(result: Result, beside: Beside) -> list[tuple[str, Result]]:
    """The results with a name each, the search itself first."""
    made = [(result.spec.sampler, result)]
    others = (
        beside.items() if isinstance(beside, Mapping) else ((o.spec.sampler, o) for o in beside)
    )
    for name, other in others:
        taken = {known for known, _ in made}
        again = (f"{name} {at}" for at in range(2, len(made) + 3))
        made.append((next(n for n in (name, *again) if n not in taken), other))
    return made


@dataclass(frozen=True)
class Shuffled:
    """The hypervolume after 1, 2, ... evaluations of the same trials in `orders` random orders: the
    mean, and between which values nine of ten orders are."""

    orders: int
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def shuffled(result: Result, span: Span, machine: str, seed: int = 0) -> Shuffled | None:
    """What the order of the proposals was worth; None of more trials than can be shuffled often
    enough. It is not a random search: the trials are those that the sampler chose. One that learns
    finds its best trials late, and so begins below its own trials in a random order."""
    paid = [trial for trial in result.trials if trial.state.final and not is_free(trial)]
    orders = min(ORDERS, WORK // max(len(paid), 1))
    if orders < FEWEST or not paid:
        return None
    counted = same_machine(result.succeeded, result.metrics, machine)
    place_of = {trial.number: at for at, trial in enumerate(counted)}
    rng = random.Random(seed)

    def drawn() -> Iterator[list[int]]:
        for _ in range(orders):
            rng.shuffle(paid)
            yield [place_of.get(trial.number, len(counted)) for trial in paid]

    columns = [list(column) for column in zip(*in_orders(span, counted, drawn()), strict=True)]
    for column in columns:
        column.sort()
    ends = [round(part * (orders - 1)) for part in (LOW, HIGH)]
    mean = [sum(column) / orders for column in columns]
    low, high = ([column[end] for column in columns] for end in ends)
    return Shuffled(orders, mean, low, high)
