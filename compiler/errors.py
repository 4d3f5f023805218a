"""What can go wrong, for users of the compiler.

    FormwrightError
    ├── OptionError          an option has a value of the wrong kind
    │   └── UnknownNameError     a name that is not among the known ones (option, target, pass)
    ├── FactoryError         `compile-report` could not make the model that was asked for
    └── Declined             internal: a graph or site is left as it is, with a `Reason`

A `FormwrightWarning` says that something of ours failed and was left out. A `Declined` never
reaches the user as an exception: it becomes a row of the report (see `report.py`). It must not
know torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .report import Reason


class FormwrightWarning(UserWarning):
    """Something of ours failed and was left out; the model runs. The report has the reason."""


class FormwrightError(Exception):
    """Whatever this package raises on purpose."""


class OptionError(FormwrightError, ValueError):
    """An option was given a value that it does not take."""


class UnknownNameError(OptionError):
    """A name that is not known. Says what was given, what is known and the nearest guess."""

    def __init__(self, kind: str, given: object, known: Iterable[str]) -> None:
        names = sorted(known)
        guess = get_close_matches(str(given), names, n=1)
        hint = f". Did you mean {guess[0]!r}?" if guess else ""
        super().__init__(f"unknown {kind} {given!r}; known: {', '.join(names)}{hint}")


class FactoryError(FormwrightError):
    """A `module:factory` on the command line could not be used."""


class Declined(FormwrightError):
    """A graph is not taken. `reason` is the code for machines, the message is for people."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
