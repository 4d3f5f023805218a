"""What can go wrong, for users of the compiler.

    FormwrightError
    ├── OptionError          an option has a value of the wrong kind
    │   └── UnknownNameError     a name that is not among the known ones (option, target, pass)
    ├── ConversionError      `convert` cannot convert the model
    ├── FactoryError         `compile-report` could not make the model that was asked for
    └── Declined             internal: a graph or site is left as it is, with a `Reason`

A `FormwrightWarning` says that something of ours failed and was left out. A `Declined` never
reaches the user as an exception: it becomes a row of the report (see `report.py`). It must not
know torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import FormwrightError as FormwrightError
from ..errors import unknown

if TYPE_CHECKING:
    from .report import Reason


class FormwrightWarning(UserWarning):
    """Something of ours failed and was left out; the model runs. The report has the reason."""


class OptionError(FormwrightError, ValueError):
    """An option was given a value that it does not take."""


class UnknownNameError(OptionError):
    """A name that is not known. Says what was given, what is known and the nearest guess."""

    def __init__(self, kind: str, given: object, known: Iterable[str]) -> None:
        super().__init__(unknown(kind, given, known))


class ConversionError(FormwrightError):
    """A model is not converted. Says which norm has to stay and why."""


class FactoryError(FormwrightError):
    """A `module:factory` on the command line could not be used."""


class Declined(FormwrightError):
    """A graph is not taken. `reason` is the code for machines, the message is for people."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
