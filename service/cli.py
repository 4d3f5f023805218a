"""The commands of the service: `formwright serve | submit | searches | watch | best | trials |
cancel`.

Each takes its arguments and returns an exit code: 0, 1 if the search did not succeed, 2 for what
cannot be done, with one line that says why. Next: `client.py` does the work, `show.py` the looks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from ..errors import FormwrightError
from ..search import (
    METRICS,
    PROXY_NAMES,
    SAMPLERS,
    SPACES,
    TASKS,
    UNITS,
    SearchSpec,
    SpecError,
)
from .client import Client
from .errors import InvalidRequest, NotFound
from .records import SearchRecord, SearchState, TrialRecord
from .settings import PORT, Settings, server_address
from .show import follow, front_table, plot, searches_table, trials_table

Command = Callable[[argparse.Namespace, Console], int]


def serve(arguments: list[str]) -> int:
    parser = _parser("serve", "Serve searches until interrupted.", server=False)
    own = " (default %(default)s)"
    parser.add_argument("--database", default="formwright.db", help="SQLite file or URL" + own)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on" + own)
    parser.add_argument("--port", type=int, default=PORT, help="0 takes a free one" + own)
    parser.add_argument("--workers", type=int, default=2, help="of Ray; 0: without Ray" + own)
    parser.add_argument("--ray", metavar="ADDRESS", help="a Ray cluster (default: one is started)")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    return _run(parser, arguments, _serve)


def submit(arguments: list[str]) -> int:
    parser = _parser("submit", "Submit a search. What is not given has its default.")
    parser.add_argument("-f", "--file", help="a spec as JSON; - for standard input")
    helps = _field_help()
    for field in fields(SearchSpec):
        default: Any = field.default
        several = isinstance(default, tuple)
        shown = " ".join(map(str, default)) or "none" if several else default
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(next(iter(default), "")) if several else type(default),
            nargs="+" if several else None,
            help=f"{helps[field.name]} (default {shown})",
        )
    parser.add_argument("--request-id", default="", help="makes it safe to submit again")
    parser.add_argument("--display-name", default="", help="for people")
    parser.add_argument("--watch", action="store_true", help="show it until it has ended")
    return _run(parser, arguments, _submit)


def searches(arguments: list[str]) -> int:
    return _run(_parser("searches", "All searches, the newest first."), arguments, _searches)


def watch(arguments: list[str]) -> int:
    parser = _parser("watch", "Show a search until it has ended.", of_search=True)
    return _run(parser, arguments, _watch)


def best(arguments: list[str]) -> int:
    what = "The best architectures: the Pareto front of a search, or of all."
    parser = _parser("best", what, of_search=True)
    parser.add_argument("--all", action="store_true", help="over all searches")
    for name in ("space", "task"):
        parser.add_argument(f"--{name}", default="", help=f"only searches of this {name}")
    parser.add_argument("--machine", default="", help="only what this machine measured (m1:…)")
    parser.add_argument("--objectives", nargs="+", default=(), metavar="METRIC")
    for name, what in (("--at-least", "lowest"), ("--at-most", "highest")):
        parser.add_argument(
            name, action="append", default=[], metavar="METRIC=VALUE", help=f"{what} value"
        )
    parser.add_argument("-n", "--limit", type=int, default=0, help="at most so many")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return _run(parser, arguments, _best)


def trials(arguments: list[str]) -> int:
    parser = _parser("trials", "Every trial of a search.", of_search=True)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return _run(parser, arguments, _trials)


def cancel(arguments: list[str]) -> int:
    parser = _parser("cancel", "End a search; its running trials are pruned.")
    parser.add_argument("search", help="its id")
    return _run(parser, arguments, _cancel)


def _serve(given: argparse.Namespace, console: Console) -> int:
    from .server import serve as serving  # loads SQLAlchemy, which no other command needs

    if given.workers < 0 or not 0 <= given.port < 65536:
        raise SpecError(
            f"wanted 0 workers or more and a port from 0 to 65535, got {given.workers} workers "
            f"and port {given.port}"
        )
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    settings = Settings(
        given.database, given.host, given.port, given.workers, given.ray, given.with_parent
    )

    if not given.host.startswith("127.") and given.host not in ("localhost", "::1"):
        print(
            f"warning: whoever reaches {given.host} may submit searches; there is no "
            "authentication yet",
            file=sys.stderr,
        )

    def ready(address: str) -> None:
        print(f"formwright serves on {address}, database {settings.database}", flush=True)

    asyncio.run(serving(settings, ready))
    return 0


def _submit(given: argparse.Namespace, console: Console) -> int:
    spec = _spec(given)
    with Client(given.server) as client:
        search = client.submit(spec, request_id=given.request_id, display_name=given.display_name)
        console.print(search.id, highlight=False)
        return _follow(client, search, console) if given.watch else 0


def _searches(given: argparse.Namespace, console: Console) -> int:
    with Client(given.server) as client:
        console.print(searches_table(client.searches()))
    return 0


def _watch(given: argparse.Namespace, console: Console) -> int:
    with Client(given.server) as client:
        return _follow(client, _search(client, given.search), console)


def _best(given: argparse.Namespace, console: Console) -> int:
    with Client(given.server) as client:
        search = None if given.all else _search(client, given.search)
        objectives = given.objectives or (search.spec if search else SearchSpec()).objectives
        front = client.best(
            search.id if search else "",
            objectives=objectives,
            bounds=_bounds(given.at_least, given.at_most),
            space=given.space,
            task=given.task,
            machine=given.machine,
            limit=given.limit,
        )
        if given.json:
            _print_json(front)
            return 0
        if not front:
            console.print("no trial succeeded that is within these bounds")
            return 0
        console.print(front_table(front, "best architectures", objectives))
        if search and len(objectives) > 1 and console.is_terminal:
            print(plot(list(client.trials(search.id)), front, objectives[1], objectives[0]))
    return 0


def _trials(given: argparse.Namespace, console: Console) -> int:
    with Client(given.server) as client:
        search = _search(client, given.search)
        found = list(client.trials(search.id))
        if given.json:
            _print_json(found)
        else:
            title = f"search {search.id}, {search.state.lower()}"
            console.print(trials_table(found, title, search.spec.objectives))
    return 0


def _cancel(given: argparse.Namespace, console: Console) -> int:
    with Client(given.server) as client:
        ended = client.cancel(given.search.removeprefix("searches/"))
        console.print(f"search {ended.id} {ended.state.lower()}", highlight=False)
    return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser(
    name: str, what: str, *, server: bool = True, of_search: bool = False
) -> argparse.ArgumentParser:
    parser = _Parser(prog=f"formwright {name}", description=what)
    if server:
        parser.add_argument(
            "--server",
            default=server_address(),
            metavar="HOST:PORT",
            help="(default %(default)s, or FORMWRIGHT_SERVER)",
        )
    if of_search:
        parser.add_argument("search", nargs="?", help="its id (default: the newest)")
    return parser


def _run(parser: argparse.ArgumentParser, arguments: list[str], command: Command) -> int:
    """Whatever we raise on purpose is one line and exit code 2."""
    given = parser.parse_args(arguments)
    try:
        return command(given, Console())
    except (FormwrightError, UnicodeError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads has seen enough
        return 0


def _field_help() -> dict[str, str]:
    """Field of a spec -> what it is; the defaults are the spec's own."""
    installed = "or what the server has installed"
    return {
        "space": f"what is searched: {', '.join(SPACES.names())}, {installed}",
        "task": f"what is learnt: {', '.join(TASKS.names())}, {installed}",
        "trials": "how many architectures are tried",
        "objectives": f"the most important first, of: {', '.join(METRICS)}",
        "sampler": f"who proposes: {', '.join(SAMPLERS.names())}",
        "seed": "of the proposals and of every training",
        "steps": "of training, for each architecture",
        "batch": "examples in a step, and in a call whose latency is measured",
        "threads": "that train and that latency is measured with",
        "target": "compiles the rewritten graph, as for torch.compile; eager generates no code",
        "timeout_s": "seconds after which a trial has failed",
        "attempts": "how often a trial is tried whose worker is lost",
        "knobs": "a part of the space, as in width=16|32 depth=2",
        "constraints": "what a candidate must keep, as in 'params<=2e4' 'quality>=0.9'",
        "baselines": "files with architectures of your own (their JSON), tried first",
        "budget": f"of training in another unit, as in '2e6 tokens'; of: {', '.join(UNITS)}",
        "rates": "learning rates that each trial is trained with; the best counts",
        "pretrain": "steps of self-supervised training before the training",
        "rungs": "parts of the training after which only the best go on",
        "keep": "one of so many goes on",
        "audit": "share of those who were stopped that is trained to the end all the same",
        "latency": "whole: each model is compiled and measured; layers: predicted, then the front",
        "weights": "own: each trial is trained; shared: sub-models of one trained supernet",
        "seconds": "of evaluation that all trials may take together; 0: no bound",
        "proxies": f"scores without training, for the record: {', '.join(PROXY_NAMES)}",
        "flops": "of training that all trials may take together; 0: no bound",
    }


def _spec(given: argparse.Namespace) -> SearchSpec:
    """The file's spec with what the command line says on top. Raises SpecError."""
    data: dict[str, Any] = {}
    if given.file:
        try:
            text = sys.stdin.read() if given.file == "-" else Path(given.file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SpecError(f"cannot read {given.file}: {error}") from error
        data = SearchSpec.from_json(text).to_dict()
    for field in fields(SearchSpec):
        value = getattr(given, field.name)
        if value is not None:
            data[field.name] = value
    if given.baselines is not None:
        data["baselines"] = list(map(_architecture, given.baselines))
    return SearchSpec.from_dict(data)


def _architecture(given: str) -> str:
    """The JSON itself, or what is in the file. Raises SpecError."""
    try:
        return given if given.lstrip().startswith("{") else Path(given).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read {given}: {error}", "baselines") from error


def _search(client: Client, id: str | None) -> SearchRecord:
    """The search called `id`, or the newest. Raises NotFound."""
    if id:
        return client.get(id.removeprefix("searches/"))
    newest = next(client.searches(), None)
    if newest is None:
        raise NotFound("there is no search yet; `formwright submit` makes one")
    return newest


def _follow(client: Client, search: SearchRecord, console: Console) -> int:
    return 0 if follow(client, search, console) is SearchState.SUCCEEDED else 1


def _bounds(lowest: list[str], highest: list[str]) -> dict[str, tuple[float | None, float | None]]:
    """`METRIC=VALUE` texts as bounds. Raises InvalidRequest."""
    bounds: dict[str, tuple[float | None, float | None]] = {}
    for texts, at in ((lowest, 0), (highest, 1)):
        for text in texts:
            metric, _, value = text.partition("=")
            try:
                number = float(value)
            except ValueError:
                raise InvalidRequest(f"{text!r} is not METRIC=VALUE") from None
            low, high = bounds.get(metric, (None, None))
            bounds[metric] = (low, number) if at else (number, high)
    return bounds


def _print_json(trials: list[TrialRecord]) -> None:
    for trial in trials:
        row = {
            "search": trial.search_id,
            "number": trial.number,
            "state": trial.state,
            "attempt": trial.attempt,
            "rung": trial.rung,
            "metrics": dict(trial.values),
            "machine": trial.machine,
            "error": trial.error,
            "fingerprint": trial.fingerprint,
            "architecture": trial.architecture.to_dict(),
            "details": trial.details,
        }
        print(json.dumps(row, sort_keys=True))
