"""What the commands share: how arguments are read, what becomes of errors, which search is meant.

A command is a function `name(arguments)` that runs, and `name_parser()` beside it, which knows its
options and loads nothing that is slow: completion asks for it. An option that is a setting has the
setting as its default; `run` puts the value of the environment, the file or the table in its place.
It must not know what a command does. Next: `output.py`; `../settings.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console

from ...errors import FormwrightError
from ...extras import MissingExtraError, needs
from ..configured import resolve
from ..errors import NotAllowed, NotFound
from ..settings import SETTINGS, Scalar, Setting, with_port

if TYPE_CHECKING:
    from ..client import Client
    from ..records import SearchRecord

TRUST = ("token_file", "ca", "client_certificate", "client_key")
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
        add_setting(made, "server", metavar="HOST:PORT")
        add_setting(made, "deadline", metavar="SECONDS")
        for name in TRUST:
            add_setting(made, name, metavar="FILE")
        said = "look into a database, a file or a URL, without a server"
        made.add_argument("--local", default="", metavar="DATABASE", help=said)
    if of_search:
        made.add_argument("search", nargs="?", help="its id (default: the newest)")
    return made


def add_setting(
    to: argparse.ArgumentParser,
    name: str,
    *flags: str,
    metavar: str | None = None,
    alone: str | None = None,
) -> None:
    """The option `--name` of a setting, and further flags for it. `alone` is its value where the
    option is given without one."""
    setting = SETTINGS[name]
    standard = "" if setting.default == "" else f", default {setting.default}"
    to.add_argument(
        *flags,
        f"--{name.replace('_', '-')}",
        dest=name,
        type=_reader(setting),
        choices=setting.choices or None,
        default=setting,
        nargs=None if alone is None else "?",
        const=alone,
        metavar=metavar,
        help=f"{setting.meaning.replace('`', '')} ({setting.variable}{standard})",
    )


def _reader(setting: Setting) -> Callable[[str], Scalar]:
    if setting.choices:
        return str  # argparse lists them

    def read(text: str) -> Scalar:
        try:
            return setting.read(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"wanted {setting.wanted()}, got {text!r}") from None

    return read


def suggest(action: argparse.Action, names: Iterable[str]) -> None:
    """What completion offers for an option that takes other words too."""
    action.suggested = tuple(names)  # type: ignore[attr-defined]


def run(of: argparse.ArgumentParser, arguments: list[str], command: Command) -> int:
    """Whatever we raise on purpose is one line and exit code 2."""
    given = of.parse_args(arguments)
    try:
        for name, value in vars(given).items():
            if isinstance(value, Setting):
                setattr(given, name, resolve(value).value)
        return command(given, Console())
    except MissingExtraError:  # whoever calls the command knows which extra it wants
        raise
    except BrokenPipeError:  # whoever reads has seen enough
        return 0
    except (FormwrightError, OSError, UnicodeError) as error:
        print(f"{of.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def connect(given: argparse.Namespace) -> Client:
    """To the server that was named, or that the settings name; or to a database, which is there
    already."""
    from ..client import Client, Trust  # loads gRPC, which a parser does not need

    if given.local:
        with needs("service", "--local"):
            from ..store.examine import examine

            found = examine(given.local)
            if not found.found:
                raise NotFound(f"there are no searches in {found.where}")
            if found.found != found.newest:
                said = f"{found.where} has revision {found.found}, this is {found.newest}"
                raise NotAllowed(f"{said}; `formwright serve` brings an older one up to date")
            return Client.local(given.local)
    server = with_port(given.server)
    trust = Trust.by_settings(server, **{name: getattr(given, name) for name in TRUST})
    return Client(server, timeout_s=given.deadline, trust=trust)


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
    from ..records import SearchState
    from ..show import follow

    return 0 if follow(client, search, console) is SearchState.SUCCEEDED else 1
