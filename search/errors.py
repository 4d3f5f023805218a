"""What can go wrong, for users of the search.

    FormwrightError
    └── SearchError
        ├── SpecError            a spec of a search or of an architecture is malformed
        │   └── UnknownNameError     a space, task, block, sampler or metric that is not known
        ├── EvaluationError      a candidate could not be evaluated; it fails, the search goes on
        ├── PoolError            the workers could not be started
        └── Fenced               a log refused an entry: somebody else has gone on meanwhile

It must not know torch, ray or optuna.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import FormwrightError, unknown


class SearchError(FormwrightError):
    """Whatever the search raises on purpose."""


class SpecError(SearchError, ValueError):
    """A spec is malformed. `field` is the path of what is wrong, as in `layers[2].mixer.heads`."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


class UnknownNameError(SpecError):
    """A name that is not known. Says what was given, what is known and the nearest guess."""

    def __init__(self, kind: str, given: object, known: Iterable[str], field: str = "") -> None:
        names = tuple(known)
        super().__init__(unknown(kind, given, names), field)
        self._made_of = (kind, given, names, field)

    def __reduce__(self) -> tuple[Any, ...]:  # workers send their errors
        return type(self), self._made_of


class EvaluationError(SearchError):
    """A candidate could not be evaluated: it diverged, took too long, or does not fit its input."""


class PoolError(SearchError):
    """The workers could not be started, or are gone for good."""


class Fenced(SearchError):
    """A log refused an entry, because the trial, the search or the lease has moved on. Whoever
    wrote it is out of date and must stop."""
