"""`formwright export`: a search for other programs. Next: `../exports.py`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from rich.console import Console

from ...extras import needs
from ..errors import InvalidRequest
from .common import connect, parser, run, search_of, suggest

if TYPE_CHECKING:
    from ..exports import Target

FORMATS = ("csv", "json", "parquet")
TABLES = ("trials.csv", "trials.json", "trials.parquet")  # a colon is not for every shell


def export_parser() -> argparse.ArgumentParser:
    what = "Write a search for other programs: all of its trials, as a table or a study of Optuna."
    made = parser("export", what, of_search=True)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.epilog = (
        "TARGET is one of\n"
        "  FILE.csv, FILE.json, FILE.parquet   a row for each trial\n"
        "  -                                   the standard output, with --format csv or json\n"
        "  optuna:FILE.db, optuna:URL          a study in a database (sqlite:///, postgresql://)\n"
        "  optuna:FILE                         a study in the file of a journal"
    )
    to = made.add_argument(
        "--to", required=True, metavar="TARGET", help="where to, one of those below"
    )
    suggest(to, TABLES)
    made.add_argument("--format", choices=FORMATS, default="", help="(default: by the name)")
    made.add_argument("--study-name", default="", metavar="NAME", help="(default: the search's id)")
    said = "write over a file, or an earlier study of this search"
    made.add_argument("--replace", action="store_true", help=said)
    said = "make the study in a database that holds searches of ours"
    made.add_argument("--beside", action="store_true", help=said)
    return made


def export(arguments: list[str]) -> int:
    return run(export_parser(), arguments, _export)


def _export(given: argparse.Namespace, console: Console) -> int:
    from .. import exports

    target = exports.Target.of(given.to, given.format)
    if target.place == "-" and target.form == "parquet":
        raise InvalidRequest("Parquet goes to a file", "to")
    _check_options(given, target)
    with connect(given) as client:
        search = search_of(client, given.search)
        trials = list(client.trials(search.id))
    if target.place == "-":
        sys.stdout.buffer.write(exports.FORMS[target.form](trials))
        sys.stdout.flush()
        return 0
    name = given.study_name or search.id
    with needs("search", "a study of Optuna"):
        exports.export(
            search, trials, target, name=name, replace=given.replace, beside=given.beside
        )
    study = f", study {name}" if target.is_study else ""
    count = f"{len(trials)} trial{'s' * (len(trials) != 1)}"
    said = f"search {search.id}: {count} in {target}{study}"
    console.print(said, highlight=False, markup=False, soft_wrap=True)
    return 0


def _check_options(given: argparse.Namespace, target: Target) -> None:
    """Raises InvalidRequest for what would have no effect."""
    for option in ("study_name", "beside"):
        if getattr(given, option) and not target.is_study:
            raise InvalidRequest(f"--{option.replace('_', '-')} is for optuna:…, not {target}")
