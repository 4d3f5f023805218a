"""`formwright keep`: an architecture of a search becomes an artefact, in one command.

It must not know how one is made. Next: `make.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ...errors import FormwrightError
from ...extras import MissingExtraError
from ..errors import EvaluationError, SpecError
from ..objective import METRICS, Direction, metric_named
from ..result import Result
from ..search_spec import SearchSpec
from ..show.tables import arrow, number
from ..spec import ArchSpec
from ..trial import Trial


def keep(arguments: list[str]) -> int:
    """Exit code 0 with what was kept on standard output, 1 where it cannot be trained, measured or
    proven, 2 for what cannot be done, with one line that says why."""
    given = keep_parser().parse_args(arguments)
    try:
        architecture, spec, trial = _wanted(given)
        from .make import keep as make  # loads torch, which whoever is refused does not need

        kept = make(architecture, spec, given.to, seeds=given.seeds, trial=trial, progress=_say)
    except MissingExtraError:  # whoever calls the command knows which extra it wants
        raise
    except (FormwrightError, OSError, UnicodeError) as error:
        print(f"formwright keep: {error}", file=sys.stderr)
        return 1 if isinstance(error, EvaluationError) else 2
    except KeyboardInterrupt:
        return 130
    _show(given.to, kept.metrics)
    return 0


def keep_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "formwright keep",
        description="Train, measure and prove a member of a front, and keep it as a folder.",
    )
    said = "the file that Result.save wrote"
    parser.add_argument("result", nargs="?", metavar="FILE", help=said)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--number", type=int, help="the trial with this number")
    which.add_argument(
        "--best", metavar="METRIC", help="of the front the best by this (default: first objective)"
    )
    text = "or the JSON itself"
    spec = f"instead: a file with the spec of a search, {text}"
    parser.add_argument("--spec", metavar="FILE", help=spec)
    architecture = f"with it, a file with an architecture, {text}"
    parser.add_argument("--architecture", metavar="FILE", help=architecture)
    parser.add_argument("--to", required=True, metavar="FOLDER", help="new or empty")
    parser.add_argument("--seeds", type=int, default=3, help="trainings (default %(default)s)")
    return parser


def _wanted(given: argparse.Namespace) -> tuple[ArchSpec, SearchSpec, Trial | None]:
    """Raises SpecError for what is not there, OSError for a file that cannot be read."""
    apart = (given.spec, given.architecture)
    if (None in apart) == (given.result is None) or (given.result and any(apart)):
        raise SpecError("wanted the result of a search, or --spec and --architecture")
    if given.result is None:
        if given.number is not None or given.best:
            raise SpecError("--number and --best are about the result of a search")
        architecture = ArchSpec.from_json(_read(given.architecture))
        return architecture, SearchSpec.from_json(_read(given.spec)), None
    result = Result.load(given.result)
    trial = _best(result, given.best) if given.number is None else _numbered(result, given.number)
    return trial.architecture, result.spec, trial


def _read(given: str) -> str:
    return given if given.lstrip().startswith("{") else Path(given).read_text(encoding="utf-8")


def _numbered(result: Result, number: int) -> Trial:
    for trial in result.trials:
        if trial.number == number:
            return trial
    raise SpecError(f"there is no trial {number}; there are {len(result.trials)}, from 0")


def _best(result: Result, name: str | None) -> Trial:
    """Of the front, where several machines have measured that of the one with the most results."""
    metric = metric_named(name or result.spec.objectives[0], "best")
    front = result.front(machine=next(iter(result.machines), ""))
    if not front:
        raise SpecError("no trial of this search succeeded")
    known = [trial for trial in front if metric.name in trial.values]
    if not known:
        raise SpecError(f"the search did not measure {metric.name}", "best")
    find = max if metric.direction is Direction.MAXIMIZE else min
    return find(known, key=lambda trial: trial.values[metric.name])


def _say(done: int, of: int, what: str) -> None:
    """A line each, on a terminal as elsewhere: nothing moves while a latency is measured."""
    console = Console(stderr=True)
    console.print(f"{done}/{of}  {what}", highlight=False, markup=False, soft_wrap=True)


def _show(folder: str, metrics: Mapping[str, Any]) -> None:
    """The numbers, and where they are."""
    spread = metrics["spread"]
    table = Table(title=metrics["architecture"]["short"], box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("", "kept", f"mean of {len(metrics['seeds'])}", "standard deviation"):
        table.add_column(column, justify="right" if column else "left")
    lines = {name: (name, metrics["values"][name]) for name in METRICS if name in metrics["values"]}
    lines |= {"test_quality": ("quality", metrics["test"]["quality"])}
    for name, (metric, value) in lines.items():
        of = spread.get(name, {})
        deviation = of.get("std")
        said = "" if deviation is None else number(deviation)
        table.add_row(f"{name} {arrow(metric)}", number(value), number(of["mean"]), said)
    Console(highlight=False).print(table)
    print(folder)
