"""`Look`: what all checks are given: the options and the settings, the time, and what was found
before.

It must not know the checks. Next: `../checkup.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from ..configured import DEFAULT, Value, resolve
from ..settings import SETTINGS, Scalar

PATIENCE_S = 5.0  # for whoever is asked over a network
Answer = TypeVar("Answer")


def now() -> datetime:
    """By the clock of this machine."""
    return datetime.now(UTC)


@dataclass
class Look:
    """`options` are what was said on the command line, and go before the settings. `clock` tells
    the time, which a test sets."""

    options: Mapping[str, Scalar] = field(default_factory=dict)
    clock: Callable[[], datetime] = now
    patience_s: float = PATIENCE_S
    _kept: dict[str, Any] = field(default_factory=dict)

    def value(self, name: str) -> Value:
        """Of a setting. Raises SettingError."""
        if name in self.options:
            return Value(self.options[name], "option")
        return resolve(SETTINGS[name])

    def text(self, name: str) -> str:
        """Of a setting that is a text. Raises SettingError."""
        return str(self.value(name).value)

    def named(self, name: str) -> bool:
        """Whether somebody has set it: then it must be there. Raises SettingError."""
        return self.value(name).source != DEFAULT

    def variable(self, name: str, value: str = "...") -> str:
        """How to set it, for a remedy: by the environment, and in the file where it may stand
        there."""
        setting = SETTINGS[name]
        in_file = f" (in the file: {setting.key})" if setting.key else ""
        return f"{setting.variable}={value}{in_file}"

    def once(self, what: str, ask: Callable[[], Answer]) -> Answer:
        """What was asked is asked once, and its failure is known once too."""
        if what not in self._kept:
            try:
                self._kept[what] = ask(), None
            except Exception as error:
                self._kept[what] = None, error
        answer, failure = self._kept[what]
        if failure is not None:
            raise failure
        made: Answer = answer
        return made
