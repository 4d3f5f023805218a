"""`formwright doctor`: one line for each thing that must be well, and what to do where it is not.

Exit code 0 where nothing failed, 1 otherwise. Next: `../checkup.py`, the checks.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..settings import FORMATS
from .common import parser, run
from .output import show

if TYPE_CHECKING:
    from ..checkup import Check

STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


def doctor_parser() -> argparse.ArgumentParser:
    made = parser("doctor", "Look at what is installed and what answers here.", server=False)
    # no settings: settings that cannot be are something to report, not to end at
    made.add_argument("--server", metavar="HOST:PORT", help="it must answer")
    made.add_argument("--database", metavar="FILE", help="a file, or a URL: it must open")
    made.add_argument("-o", "--output", choices=FORMATS, default="table", help="as elsewhere")
    return made


def doctor(arguments: list[str]) -> int:
    return run(doctor_parser(), arguments, _doctor)


def _doctor(given: argparse.Namespace, console: Console) -> int:
    checks = list(_checks(given))
    show(given, console, map(asdict, checks), lambda: _table(checks))
    return 1 if any(check.status == "failed" for check in checks) else 0


def _checks(given: argparse.Namespace) -> Iterator[Check]:
    from .. import checkup

    yield checkup.of_python()
    yield from checkup.of_packages()
    yield checkup.of_compiler()
    yield checkup.of_cores()
    yield checkup.of_settings()
    yield checkup.of_variables()
    yield checkup.of_cache()
    yield from checkup.of_database(given.database)
    yield checkup.of_server(given.server)


def _table(checks: list[Check]) -> Table:
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        status = Text(check.status.value, STYLES[check.status.value])
        table.add_row(status, Text(check.name), Text(check.said))
    return table
