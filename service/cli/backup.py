"""`formwright backup | restore`: a database as a file, and back, from one kind to another too.

Next: `../store/backups.py`, `../store/restoring.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from .common import add_setting, parser, run

if TYPE_CHECKING:
    from ..store.copying import Copied

NAMED = {"searches": "searches", "trials": "trials", "artifacts": "artefacts"}  # of the rows


def backup_parser() -> argparse.ArgumentParser:
    what = (
        "Write all searches, and what is kept of their trials, into a new file, as they are at one "
        "moment; servers and schedulers go on meanwhile. It has the digests of tokens too: keep it "
        "as you keep the database."
    )
    made = parser("backup", what, server=False)
    made.add_argument("to", metavar="FILE", help="a new one; in a folder, one named by the time")
    add_setting(made, "database", metavar="DATABASE")
    return made


def backup(arguments: list[str]) -> int:
    return run(backup_parser(), arguments, _backup)


def restore_parser() -> argparse.ArgumentParser:
    what = (
        "Fill an empty database, a new SQLite file or one of PostgreSQL, with a backup; searches "
        "that ran go on with the next scheduler."
    )
    made = parser("restore", what, server=False)
    made.add_argument("file", metavar="FILE", help="that `formwright backup` has written")
    add_setting(made, "database", metavar="DATABASE")
    return made


def restore(arguments: list[str]) -> int:
    return run(restore_parser(), arguments, _restore)


def _backup(given: argparse.Namespace, console: Console) -> int:
    from ..store.backups import backup as back_up  # loads SQLAlchemy, which a parser does not need

    with _shown(console) as told:
        made = back_up(given.database, given.to, told)
    return _say(console, f"backup: {made.file}", made)


def _restore(given: argparse.Namespace, console: Console) -> int:
    from ..store.restoring import restore as restored

    with _shown(console) as told:
        made = restored(given.file, given.database, told)
    code = _say(console, f"restored: {made.file}", made)
    if made.rows.get("tokens"):
        said = "tokens are as they were then, also those that were revoked since"
        console.print(f"{said}; see `formwright token list`", highlight=False, soft_wrap=True)
    return code


def _say(console: Console, what: str, made: Copied) -> int:
    """Exit code 1 if some of it is damaged."""
    rows = ", ".join(f"{made.rows.get(of, 0)} {name}" for of, name in NAMED.items())
    said = f"{what}, {rows}; {decimal(made.size)}, revision {made.revision}"
    for line in (said, *(f"damaged: {name}" for name in made.damaged)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 1 if made.damaged else 0


@contextmanager
def _shown(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """What is being done, on a terminal; nothing of it stays."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("")
        yield lambda what, done, total: bar.update(
            task, description=what, completed=done, total=total
        )
