"""`formwright cancel | pause | resume | update | delete`: what becomes of a search.

Next: `../records.py`, whose table `ACTIONS` says what may be done when.
"""

from __future__ import annotations

import argparse
from functools import partial

from rich.console import Console

from ..errors import InvalidRequest
from .common import connect, id_of, parser, run

# the command, which is the method of the client too -> what it does
MOVES = {
    "cancel": "End a search; its running trials are pruned.",
    "pause": "Let go of a search's workers until it is resumed.",
    "resume": "Let a search that was paused go on.",
}


def cancel_parser() -> argparse.ArgumentParser:
    return _move_parser("cancel")


def cancel(arguments: list[str]) -> int:
    return run(cancel_parser(), arguments, partial(_move, "cancel"))


def pause_parser() -> argparse.ArgumentParser:
    return _move_parser("pause")


def pause(arguments: list[str]) -> int:
    return run(pause_parser(), arguments, partial(_move, "pause"))


def resume_parser() -> argparse.ArgumentParser:
    return _move_parser("resume")


def resume(arguments: list[str]) -> int:
    return run(resume_parser(), arguments, partial(_move, "resume"))


def update_parser() -> argparse.ArgumentParser:
    made = parser("update", "Change a search: its name, its priority, what it may spend.")
    made.add_argument("search", help="its id")
    made.add_argument("--display-name", help="for people")
    made.add_argument("--priority", type=int, help="the highest runs next; above 0: admins")
    made.add_argument("--trials", type=int, help="how many architectures are tried")
    made.add_argument("--seconds", type=int, help="of evaluation in all; 0: no bound")
    made.add_argument("--flops", type=float, help="of training in all; 0: no bound")
    made.add_argument("--etag", default="", help="only if it has not changed since")
    return made


def update(arguments: list[str]) -> int:
    return run(update_parser(), arguments, _update)


def delete_parser() -> argparse.ArgumentParser:
    made = parser("delete", "Remove a search that has ended, with its trials.")
    made.add_argument("search", help="its id")
    made.add_argument("--missing-ok", action="store_true", help="no error if there is none")
    return made


def delete(arguments: list[str]) -> int:
    return run(delete_parser(), arguments, _delete)


def _move_parser(name: str) -> argparse.ArgumentParser:
    made = parser(name, MOVES[name])
    made.add_argument("search", help="its id")
    return made


def _move(name: str, given: argparse.Namespace, console: Console) -> int:
    with connect(given) as client:
        after = getattr(client, name)(id_of(given.search))
    console.print(f"search {after.id} {after.state.lower()}", highlight=False)
    return 0


def _update(given: argparse.Namespace, console: Console) -> int:
    from ..convert import BUDGETS, from_etag  # loads protobuf, which a parser does not need

    named = {name: getattr(given, name) for name in ("display_name", "priority", *BUDGETS)}
    changes = {name: value for name, value in named.items() if value is not None}
    if not changes:
        raise InvalidRequest("nothing to change; see --help for what can be")
    with connect(given) as client:
        after = client.update(id_of(given.search), revision=from_etag(given.etag), **changes)
    console.print(f"search {after.id} updated: {', '.join(changes)}", highlight=False)
    return 0


def _delete(given: argparse.Namespace, console: Console) -> int:
    with connect(given) as client:
        client.delete(id_of(given.search), missing_ok=given.missing_ok)
    console.print(f"search {id_of(given.search)} deleted", highlight=False)
    return 0
