"""`formwright prune`: remove what has ended long ago. Next: `../store/retention.py`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.filesize import decimal

from ..errors import NotAllowed, NotFound
from .common import add_setting, parser, run

if TYPE_CHECKING:
    from ..store.retention import Removed, Retention

DAYS = {"h": 1 / 24, "d": 1.0, "w": 7.0}  # of a unit
MOST = 36500.0


def prune_parser() -> argparse.ArgumentParser:
    what = (
        "Remove searches that have ended, and that nothing has changed for some time, with their "
        "artefacts. The setting retention-days of `formwright serve` does so once a day."
    )
    made = parser("prune", what, server=False)
    add_setting(made, "database", metavar="DATABASE")
    made.add_argument("--older-than", type=_days, required=True, metavar="AGE", help="as 90d, 12h")
    made.add_argument(
        "--keep-front", action="store_true", help="but not artefacts of a front, nor their searches"
    )
    made.add_argument("--artifacts-only", action="store_true", help="searches stay")
    made.add_argument("--dry-run", action="store_true", help="only say what would go")
    return made


def prune(arguments: list[str]) -> int:
    return run(prune_parser(), arguments, _prune)


def _days(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text)
    if found is None or float(found[1]) * DAYS[found[2]] > MOST:
        raise argparse.ArgumentTypeError(f"wanted hours, days or weeks, as in 90d, got {text!r}")
    return float(found[1]) * DAYS[found[2]]


def _prune(given: argparse.Namespace, console: Console) -> int:
    from ..store import open_store  # loads SQLAlchemy, which a parser does not need
    from ..store.examine import examine

    found = examine(given.database)
    if not found.found:
        raise NotFound(f"there are no searches in {found.where}")
    if found.found != found.newest:
        said = f"{found.where} has revision {found.found}, this is {found.newest}"
        raise NotAllowed(f"{said}; `formwright serve` brings an older one up to date")

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    store = open_store(given.database)
    try:
        number = size = 0
        for removed in _removed(store.retention, given):
            number, size = number + 1, size + removed.size
            say(_line(removed))
        kind = "artefacts" if given.artifacts_only else "searches"
        would = "would be removed" if given.dry_run else "removed"
        say(f"{number} {kind} {would}, about {decimal(size)}")
        if number and not given.dry_run:
            say(_space(*store.retention.give_back(), found.file is not None))
    finally:
        store.close()
    return 0


def _removed(retention: Retention, given: argparse.Namespace) -> Iterator[Removed]:
    remove = retention.artifacts if given.artifacts_only else retention.searches
    return remove(given.older_than, keep_front=given.keep_front, dry_run=given.dry_run)


def _line(removed: Removed) -> str:
    shown = f" ({removed.display_name})" if removed.display_name else ""
    of = "" if removed.number is None else f"trial {removed.number} of "
    changed = removed.last_change.astimezone().strftime("%Y-%m-%d %H:%M")
    return f"{of}{removed.search_id}{shown}, of {changed}, {decimal(removed.size)}"


def _space(went: int, left: int, is_file: bool) -> str:
    if not is_file:
        return "PostgreSQL uses the space again once its autovacuum has seen it"
    said = f"{decimal(went)} went back to the disk"
    if left:
        said += f", {decimal(left)} are free in the file for what comes"
        said += "; a backup that is restored is a smaller one"
    return said
