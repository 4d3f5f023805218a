"""`formwright completion`: a script that completes commands, options and what these may be.

It is made by shtab from the parsers that the commands use, once: pressing Tab starts no Python. It
must not know any option. Next: `../../__main__.py`, the table of commands.
"""

from __future__ import annotations

import argparse

import shtab
from rich.console import Console

from .common import parser, run

SHELLS = ("bash", "zsh", "fish")
# what an argument is called -> what it is completed with
FILES = {"FILE": shtab.FILE, "FOLDER": shtab.DIRECTORY}
HOWTO = {
    "bash": 'eval "$(formwright completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(formwright completion zsh)"    # in ~/.zshrc, after compinit',
    "fish": "formwright completion fish | source    # in ~/.config/fish/config.fish",
}


def completion_parser() -> argparse.ArgumentParser:
    made = parser(
        "completion", "Print a script that completes commands in your shell.", server=False
    )
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.epilog = "to use it:\n" + "\n".join(f"  {line}" for line in HOWTO.values())
    made.add_argument("shell", choices=SHELLS, help="whose")
    return made


def completion(arguments: list[str]) -> int:
    return run(completion_parser(), arguments, _completion)


def _completion(given: argparse.Namespace, console: Console) -> int:
    print(shtab.complete(whole_parser(), shell=given.shell))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """One parser with all commands, for completion only."""
    from ...__main__ import COMMANDS, parser_of

    made = argparse.ArgumentParser("formwright")
    made.add_argument("--version", action="store_true", help="print the version")
    commands = made.add_subparsers(metavar="command")
    for name, (_, _, what) in COMMANDS.items():
        own = parser_of(name)
        for action in own._actions:
            _complete(action)
        # the parser as it is, where add_parser would make another one
        commands.add_parser(name, help=what, description=own.description)
        commands._name_parser_map[name] = own
    return made


def _complete(action: argparse.Action) -> None:
    if isinstance(action.metavar, str) and action.metavar in FILES:
        action.complete = FILES[action.metavar]  # type: ignore[attr-defined]
    if action.choices is None:
        action.choices = getattr(action, "suggested", None) or None
