"""`formwright fetch | report`: what a search is worth, on this machine.

Next: `../client/downloads.py`; `../results.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ...search import METRICS
from ..errors import Failed, InvalidRequest, NotFound
from .common import connect, parser, run, search_of, suggest

if TYPE_CHECKING:
    from ..client import Client
    from ..records import ArtifactRecord, SearchRecord


def fetch_parser() -> argparse.ArgumentParser:
    what = "Have a trial kept (trained anew, proven, measured), and fetch it as a folder."
    made = parser("fetch", what, of_search=True)
    which = made.add_mutually_exclusive_group()
    which.add_argument("--number", type=int, help="of the trial")
    added = which.add_argument("--best", metavar="METRIC", help="(default: the first objective)")
    suggest(added, METRICS)
    made.add_argument("--to", metavar="FOLDER", help="new, or of the same trial")
    made.add_argument("--seeds", type=int, default=0, help="trainings (default 3)")
    made.add_argument("--no-wait", action="store_true", help="only ask for it")
    return made


def fetch(arguments: list[str]) -> int:
    return run(fetch_parser(), arguments, _fetch)


def report_parser() -> argparse.ArgumentParser:
    what = "What a search has found: the front, what became of the others, what to think of it."
    made = parser("report", what, of_search=True)
    page = "a page of all of it for a browser, in one file (`-o report.html`)"
    made.add_argument("-o", "--html", metavar="FILE", help=page)
    made.add_argument("--picture", metavar="FILE", help="draw it too, as .png or .svg")
    beside = "another search to compare it with on the page and in the picture; again for more"
    made.add_argument("--beside", metavar="SEARCH", action="append", default=[], help=beside)
    made.add_argument("--save", metavar="FILE", help="all of it, for `formwright keep`")
    return made


def report(arguments: list[str]) -> int:
    return run(report_parser(), arguments, _report)


def _fetch(given: argparse.Namespace, console: Console) -> int:
    if not given.to and not given.no_wait:
        raise InvalidRequest("wanted --to FOLDER, or --no-wait")
    with connect(given) as client:
        search = search_of(client, given.search)
        number = given.number if given.number is not None else _best(client, search, given.best)
        if given.no_wait:
            record = client.keep(search.id, number, seeds=given.seeds)
            _say(console, f"trial {number} of {search.id}: {record.state.lower()}")
            return 0
        told = lambda record: _say(console, _line(record))  # noqa: E731
        try:
            to = client.fetch(search.id, number, given.to, seeds=given.seeds, told=told)
        except Failed as error:
            _say(console, str(error))
            return 1
    _say(console, f"trial {number} of {search.id} is in {to}")
    return 0


def _best(client: Client, search: SearchRecord, metric: str | None) -> int:
    """The number of the best trial. Raises NotFound."""
    by = metric or search.spec.objectives[0]
    found = client.best(search.id, objectives=[by], limit=1)
    if not found:
        raise NotFound(f"no trial of {search.id} has succeeded")
    return found[0].number


def _line(record: ArtifactRecord) -> str:
    """How far it is."""
    far = f", {record.done}/{record.total}: {record.step}" if record.step else ""
    return record.state.lower() + far


def _report(given: argparse.Namespace, console: Console) -> int:
    from ...search import as_text, picture  # which a parser does not need
    from ..results import result_of

    with connect(given) as client:
        search = search_of(client, given.search)
        result = result_of(search, client.trials(search.id))
        others = [search_of(client, other) for other in given.beside]
        beside = [result_of(other, client.trials(other.id)) for other in others]
    made = []  # before anything is said: it may be that it cannot be written
    if given.html:
        from ...search import save_report  # loads torch, for the drawings

        said = {"title": search.display_name, "state": search.state.lower(), "name": search.id}
        made.append(f"written: {save_report(result, given.html, beside, **said)}")
    if given.picture:
        made.append(f"drawn: {picture(result, given.picture, beside)}")
    if given.save:
        made.append(f"saved: {result.save(Path(given.save))}")
    shown = f" ({search.display_name})" if search.display_name else ""
    _say(console, f"search {search.id}{shown}, {search.state.lower()}")
    console.print(as_text(result, console.width), end="", highlight=False, markup=False)
    for line in made:
        _say(console, line)
    return 0


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
