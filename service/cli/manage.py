"""`formwright cancel | pause | resume | update | delete`: what becomes of a search.

Next: `../records.py`, whose table `ACTIONS` says what may be done when.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from rich.console import Console

from ..client import Client
from ..convert import BUDGETS, from_etag
from ..errors import InvalidRequest
from ..records import SearchRecord
from .common import id_of, parser, run


def cancel(arguments: list[str]) -> int:
    return _move("cancel", "End a search; its running trials are pruned.", Client.cancel, arguments)


def pause(arguments: list[str]) -> int:
    what = "Let go of a search's workers until it is resumed."
    return _move("pause", what, Client.pause, arguments)


def resume(arguments: list[str]) -> int:
    return _move("resume", "Let a search that was paused go on.", Client.resume, arguments)


def update(arguments: list[str]) -> int:
    made = parser("update", "Change a search: its name, its priority, what it may spend.")
    made.add_argument("search", help="its id")
    made.add_argument("--display-name", help="for people")
    made.add_argument("--priority", type=int, help="the highest runs next")
    made.add_argument("--trials", type=int, help="how many architectures are tried")
    made.add_argument("--seconds", type=int, help="of evaluation in all; 0: no bound")
    made.add_argument("--flops", type=float, help="of training in all; 0: no bound")
    made.add_argument("--etag", default="", help="only if it has not changed since")
    return run(made, arguments, _update)


def delete(arguments: list[str]) -> int:
    made = parser("delete", "Remove a search that has ended, with its trials.")
    made.add_argument("search", help="its id")
    made.add_argument("--missing-ok", action="store_true", help="no error if there is none")
    return run(made, arguments, _delete)


def _move(
    name: str, what: str, move: Callable[[Client, str], SearchRecord], arguments: list[str]
) -> int:
    def command(given: argparse.Namespace, console: Console) -> int:
        with Client(given.server) as client:
            after = move(client, id_of(given.search))
        console.print(f"search {after.id} {after.state.lower()}", highlight=False)
        return 0

    made = parser(name, what)
    made.add_argument("search", help="its id")
    return run(made, arguments, command)


def _update(given: argparse.Namespace, console: Console) -> int:
    named = {name: getattr(given, name) for name in ("display_name", "priority", *BUDGETS)}
    changes = {name: value for name, value in named.items() if value is not None}
    if not changes:
        raise InvalidRequest("nothing to change; see --help for what can be")
    with Client(given.server) as client:
        after = client.update(id_of(given.search), revision=from_etag(given.etag), **changes)
    console.print(f"search {after.id} updated: {', '.join(changes)}", highlight=False)
    return 0


def _delete(given: argparse.Namespace, console: Console) -> int:
    with Client(given.server) as client:
        client.delete(id_of(given.search), missing_ok=given.missing_ok)
    console.print(f"search {id_of(given.search)} deleted", highlight=False)
    return 0
