"""How a candidate fails: its time is up, or an exception, told in one line.

It must not know torch: exceptions are looked at from outside. Next: `evaluator.py`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ...errors import FormwrightError, one_line
from ..errors import EvaluationError


@dataclass(frozen=True)
class Deadline:
    """`at` on the clock `time.monotonic()`, which is `seconds` after the start."""

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds, seconds)

    def check(self, doing: str) -> None:
        """Raises EvaluationError if the time is up; `doing` says with what."""
        if time.monotonic() > self.at:
            raise self.passed(doing)

    def passed(self, doing: str) -> EvaluationError:
        return EvaluationError(f"took longer than {self.seconds:g} s ({doing})")


def reason(error: BaseException) -> str:
    """What went wrong, in one line. Our own errors are written for people and told as they are;
    of others, the type and the first line.

    >>> reason(RuntimeError("mat1 and mat2 cannot be multiplied\\nand so on"))
    'RuntimeError: mat1 and mat2 cannot be multiplied'
    """
    error = _inside(error)
    if isinstance(error, FormwrightError):
        return _shortened(str(error))
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    return one_line(f"{name}: {lines[0]}" if lines else name)


def _shortened(text: str, longest: int = 500) -> str:
    """In one line, cut in the middle: a list of known names may be long, and the nearest guess
    stands at the end."""
    text = " ".join(text.split())
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[: half - 1]}…{text[-half:]}"


def _inside(error: BaseException) -> BaseException:
    """The error of a backend, out of the BackendCompilerFailed that torch packs it into."""
    while isinstance(inner := getattr(error, "inner_exception", None), BaseException):
        error = inner
    return error
