"""What the commands share: how arguments are read, what becomes of errors, which search is meant.

It must not know what a command does. Next: `output.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from rich.console import Console

from ...errors import FormwrightError
from ..client import Client
from ..errors import NotFound
from ..records import SearchRecord, SearchState
from ..settings import server_address
from ..show import follow

Command = Callable[[argparse.Namespace, Console], int]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser(
    name: str, what: str, *, server: bool = True, of_search: bool = False
) -> argparse.ArgumentParser:
    """`of_search` for a command that takes the newest search if none is named."""
    made = _Parser(prog=f"formwright {name}", description=what)
    if server:
        made.add_argument(
            "--server",
            default=server_address(),
            metavar="HOST:PORT",
            help="(default %(default)s, or FORMWRIGHT_SERVER)",
        )
    if of_search:
        made.add_argument("search", nargs="?", help="its id (default: the newest)")
    return made


def run(of: argparse.ArgumentParser, arguments: list[str], command: Command) -> int:
    """Whatever we raise on purpose is one line and exit code 2."""
    given = of.parse_args(arguments)
    try:
        return command(given, Console())
    except (FormwrightError, UnicodeError) as error:
        print(f"{of.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads has seen enough
        return 0


def id_of(given: str) -> str:
    """Of a search, by its id or its name."""
    return given.removeprefix("searches/")


def search_of(client: Client, id: str | None) -> SearchRecord:
    """The search called `id`, or the newest. Raises NotFound."""
    if id:
        return client.get(id_of(id))
    newest = next(client.searches(), None)
    if newest is None:
        raise NotFound("there is no search yet; `formwright submit` makes one")
    return newest


def followed(client: Client, search: SearchRecord, console: Console) -> int:
    """Shows the search until it has ended; the exit code."""
    return 0 if follow(client, search, console) is SearchState.SUCCEEDED else 1
