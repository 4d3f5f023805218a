"""`formwright doctor`: one line for each thing that must be well, and what to do where it is not.

Exit code 0 where nothing failed, 1 otherwise. Next: `../checkup.py`, the table of checks.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ..settings import FORMATS
from .common import add_setting, parser, run
from .output import show

if TYPE_CHECKING:
    from ..checks.finding import Finding

STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}
# the settings whose options it takes: what `serve` and clients would take, to look at first
LOOKED_AT = (
    "server", "database", "host", "port", "web", "workers", "ray", "certificate", "key",
    "client_ca", "tokens", "token_file", "ca", "client_certificate", "client_key",
)  # fmt: skip


def doctor_parser() -> argparse.ArgumentParser:
    made = parser("doctor", "Look at what is installed and what answers here.", server=False)
    for name in LOOKED_AT:
        add_setting(made, name)
    # settings that cannot be are something to report, not to end at
    made.set_defaults(**dict.fromkeys(LOOKED_AT))
    only = "only this check; again for more; of a container's health: server"
    made.add_argument("--only", action="append", default=[], metavar="CHECK", help=only)
    made.add_argument("-o", "--output", choices=FORMATS, default="table", help="as elsewhere")
    return made


def doctor(arguments: list[str]) -> int:
    return run(doctor_parser(), arguments, _doctor)


def _doctor(given: argparse.Namespace, console: Console) -> int:
    from ..checks.look import Look
    from ..checkup import checkup

    options = {name: getattr(given, name) for name in LOOKED_AT}
    look = Look({name: value for name, value in options.items() if value is not None})
    findings = list(checkup(look, given.only))
    show(given, console, map(asdict, findings), lambda: _shown(findings))
    return 1 if any(finding.status == "failed" for finding in findings) else 0


def _shown(findings: list[Finding]) -> Group:
    """What to do stands below what is wrong, where it can be copied from."""
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        status = Text(finding.status.value, STYLES[finding.status.value])
        said = Text(finding.said)
        if finding.remedy:
            said.append(f"\n→ {finding.remedy}", style="bold")
        table.add_row(status, Text(finding.name), said)
    counts = {status: sum(each.status == status for each in findings) for status in STYLES}
    last = Text(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['failed']} failed")
    return Group(table, last)
