"""How much training a candidate gets: an amount of one unit, stated once and never mixed.

It must not know how anybody trains. Next: `evaluate/train.py`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ..errors import one_line
from .errors import SpecError

# unit -> what one of it is; the same number of each is another training for another candidate
UNITS = {
    "steps": "steps of the optimiser",
    "tokens": "tokens that the layers see, padding included",
    "flops": "operations, forward and backward: three times those of a forward pass",
    "seconds": "seconds of training by the clock: another machine gives another result",
}
TEXT = re.compile(r"\s*([-+.\w]{1,40})\s+(\w{1,20})\s*")


@dataclass(frozen=True)
class Budget:
    """`amount` of `unit`, more than nothing.

    >>> Budget.parse("2e6 tokens")
    Budget(amount=2000000.0, unit='tokens')
    """

    amount: float
    unit: str = "steps"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise SpecError(f"wanted one of {', '.join(UNITS)}, got {self.unit!r}", "budget")
        if not math.isfinite(self.amount) or self.amount <= 0:
            raise SpecError(f"wanted more than nothing, got {self.amount!r}", "budget")

    @classmethod
    def parse(cls, text: object) -> Budget:
        """Raises SpecError."""
        found = TEXT.fullmatch(text) if isinstance(text, str) else None
        try:
            if found:
                return cls(float(found[1]), found[2])
        except ValueError as error:
            if isinstance(error, SpecError):
                raise
        said = one_line(repr(text), 80)
        raise SpecError(f"wanted an amount and one of {', '.join(UNITS)}, got {said}", "budget")

    def __str__(self) -> str:
        whole = float(self.amount).is_integer() and self.amount < 1e15
        return f"{int(self.amount) if whole else self.amount!r} {self.unit}"
