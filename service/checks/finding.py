"""What a check found: how it is, and what to do where it is not well.

It must not know what is checked. Next: `look.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a check ended; only what failed makes the exit code 1."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """What was looked at and how it is. `remedy` is a command or a setting; nothing where all is
    well."""

    name: str
    status: Status
    said: str
    remedy: str = ""


def ok(name: str, said: str) -> Finding:
    return Finding(name, Status.OK, said)


def warning(name: str, said: str, remedy: str) -> Finding:
    return Finding(name, Status.WARNING, said, remedy)


def failed(name: str, said: str, remedy: str) -> Finding:
    return Finding(name, Status.FAILED, said, remedy)


def wrong(name: str, named: bool, said: str, remedy: str) -> Finding:
    """A failure of what somebody has named; of what nobody has, only a warning."""
    return Finding(name, Status.FAILED if named else Status.WARNING, said, remedy)
