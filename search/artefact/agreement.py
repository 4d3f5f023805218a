"""The proof that a model says the same however it is run: compiled, in fp32, in fp64.

    rounding    eager in fp32 against the same in fp64: what fp32 costs this model
    compiled    compiled against eager, both in fp32

Differences are the largest of any output, as a share of the largest output of the case; a case is
a batch of validation inputs or of random ones. Rounding may be a thousandth; beyond that a model
is not worth the numbers that were measured of it. What is compiled may be a few times as far from
eager as fp32 is from fp64 at worst (in 78 cases of random architectures it was 2.1 times as far at
most), so that a rewrite that is wrong in the fifth digit is found. All of it holds for these inputs
and their shapes. It must not know how the model was trained. Next: `../evaluate/latency.py`.

Shapes: B batch, ... as the stem takes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..ends import STEMS
from ..errors import EvaluationError
from ..evaluate.failure import Deadline
from ..evaluate.latency import FAR, compiled, measuring
from ..evaluate.quiet import working
from ..layout import lay_out
from ..model import Model
from ..spec import ArchSpec

SMALL = (1, 3)  # batches beside that of the search
TIMES = 8  # as far as fp32 is from fp64
LEAST = 16 * torch.finfo(torch.float32).eps  # where fp32 happens to be closer than it can promise
SEED = 0  # of the random inputs


@dataclass(frozen=True)
class Case:
    """One batch: `largest` is the largest output in fp64 (1 if all are 0); differences are
    absolute."""

    inputs: str
    batch: int
    largest: float
    rounding: float
    compiled: float


@dataclass(frozen=True)
class Law:
    """The largest difference over all cases: `absolute`, and `relative` to the largest output of
    its case, which `bound` is about."""

    what: str
    absolute: float
    relative: float
    bound: float

    @property
    def passed(self) -> bool:
        return self.relative <= self.bound  # not, if it is no number

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"passed": self.passed}


@dataclass(frozen=True)
class Agreement:
    """What was compared, and what came of it."""

    target: str
    cases: Sequence[Case]
    laws: Sequence[Law]

    def check(self) -> None:
        """Raises EvaluationError in words if a law is broken."""
        for law in self.laws:
            if not law.passed:
                raise EvaluationError(
                    f"{law.what} differ by {law.relative:.2g} of the largest output; "
                    f"{law.bound:.2g} would be rounding"
                )

    def to_dict(self) -> dict[str, Any]:
        made: dict[str, Any] = {"target": self.target, "passed": all(x.passed for x in self.laws)}
        made["laws"] = [law.to_dict() for law in self.laws]
        return made | {"cases": [asdict(case) for case in self.cases]}


def prove(
    model: Model,
    spec: ArchSpec,
    inputs: Tensor,
    *,
    batch: int,
    target: str,
    threads: int,
    deadline: Deadline,
) -> Agreement:
    """Compares `model`, which is in evaluation, in batches of 1, 3 and `batch` of `inputs` [N, ..]
    and of random ones. Raises EvaluationError if it cannot be compiled, is far from eager at once,
    or the time is up; whether the laws hold, `check` says."""
    with working():
        wide = deepcopy(model).double()
    cases: list[Case] = []
    with measuring(threads):
        for size in sorted({*SMALL, batch}):
            cases += _cases(model, wide, spec, inputs, size, target, deadline)
    rounding = _most(case.rounding / case.largest for case in cases)
    bounds = {"rounding": FAR, "compiled": min(FAR, max(LEAST, TIMES * rounding))}
    said = {"rounding": "fp32 and fp64", "compiled": "compiled and eager"}
    laws = [
        Law(
            said[name],
            _most(getattr(case, name) for case in cases),
            _most(getattr(case, name) / case.largest for case in cases),
            bound,
        )
        for name, bound in bounds.items()
    ]
    return Agreement(target, cases, laws)


def drawn(spec: ArchSpec, batch: int) -> Tensor:
    """Random inputs, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        return STEMS.load(spec.stem.name).example(lay_out(spec).stem_config, batch)


def first(inputs: Tensor, batch: int) -> Tensor:
    """The first inputs, from the beginning again where there are not enough."""
    return inputs[torch.arange(batch) % len(inputs)]


def _cases(
    model: Model,
    wide: Model,
    spec: ArchSpec,
    inputs: Tensor,
    size: int,
    target: str,
    deadline: Deadline,
) -> Iterator[Case]:
    """All of one size: compiled once, for a tensor that is filled with one after the other."""
    both = {"validation": first(inputs, size), "random": drawn(spec, size)}
    given = both["validation"].clone()
    torch.compiler.reset()
    made = compiled(model, (given,), target)
    for name, batch in both.items():
        deadline.check("comparing what it says")
        with working():
            given.copy_(batch)
            found, eager = made.call().double(), model(batch).double()
            exact = wide(batch.double() if batch.is_floating_point() else batch)
        if not exact.isfinite().all():
            raise EvaluationError(f"what it says of {name} inputs is not finite")
        yield Case(
            name,
            size,
            exact.abs().max().item() or 1.0,
            (eager - exact).abs().max().item(),
            (found - eager).abs().max().item(),
        )


def _most(differences: Iterable[float]) -> float:
    """What is no number is the most."""
    return float(torch.tensor(list(differences), dtype=torch.float64).max())


def same(one: Model, other: Model, inputs: Tensor) -> None:
    """Raises EvaluationError unless both have the same weights and buffers, bit for bit, and say
    the same of `inputs`."""
    left, right = one.state_dict(), other.state_dict()
    if left.keys() != right.keys():
        raise EvaluationError("what was loaded has other weights than what was kept")
    for name in left:
        if not _same(left[name], right[name]):
            raise EvaluationError(f"loaded, {name} is not what was kept")
    with working(), torch.no_grad():
        if not _same(one(inputs), other(inputs)):
            raise EvaluationError("loaded, the model says something else")


def _same(one: Tensor, other: Tensor) -> bool:
    alike = one.dtype == other.dtype and one.shape == other.shape
    return alike and one.numpy().tobytes() == other.numpy().tobytes()
