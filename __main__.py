"""The command line: `formwright <command>` and `python -m formwright <command>`.

Each command is loaded when it is called, so that `--help` needs neither torch nor grpc. To add a
command: a row here, a function that takes the remaining arguments and returns an exit code, and
beside it a function of the same name and `_parser` that makes its parser and loads nothing slow.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from .errors import FormwrightError, unknown
from .extras import needs

if TYPE_CHECKING:
    from argparse import ArgumentParser

# command -> (module, function, what it does)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "compile-report": (
        "formwright.compiler.cli",
        "compile_report",
        "what the compiler does to a model, and why it leaves the rest",
    ),
    "blocks": ("formwright.search.cli", "blocks", "what layers are made of"),
    "spaces": ("formwright.search.cli", "spaces", "which spaces there are, and their genes"),
    "describe": ("formwright.search.cli", "describe", "the parts of an architecture, a drawing"),
    "keep": (
        "formwright.search.artefact.cli",
        "keep",
        "keep an architecture: trained, measured, proven, as a folder",
    ),
    "serve": ("formwright.service.cli.serve", "serve", "serve searches: gRPC, a database, Ray"),
    "scheduler": ("formwright.service.cli.serve", "scheduler", "run searches of a database, too"),
    "token": ("formwright.service.cli.token", "token", "who may call a server"),
    "certs": ("formwright.service.cli.certs", "certs", "certificates for a start with TLS"),
    "submit": ("formwright.service.cli.submit", "submit", "submit a search to a server"),
    "searches": ("formwright.service.cli.look", "searches", "all searches of a server"),
    "watch": ("formwright.service.cli.look", "watch", "show a search until it has ended"),
    "best": ("formwright.service.cli.look", "best", "the best architectures that were found"),
    "pareto": ("formwright.service.cli.look", "pareto", "the Pareto front that was found"),
    "report": ("formwright.service.cli.fetch", "report", "what a search has found, on one page"),
    "fetch": ("formwright.service.cli.fetch", "fetch", "a trial, trained and proven, as a folder"),
    "export": ("formwright.service.cli.export", "export", "a search as CSV, JSON, Optuna's study"),
    "trials": ("formwright.service.cli.look", "trials", "every trial of a search"),
    "cancel": ("formwright.service.cli.manage", "cancel", "end a search"),
    "pause": ("formwright.service.cli.manage", "pause", "let go of a search's workers"),
    "resume": ("formwright.service.cli.manage", "resume", "let a paused search go on"),
    "update": ("formwright.service.cli.manage", "update", "its name, priority, what it may spend"),
    "delete": ("formwright.service.cli.manage", "delete", "remove a search that has ended"),
    "backup": ("formwright.service.cli.backup", "backup", "a database as a file, while it is used"),
    "restore": ("formwright.service.cli.backup", "restore", "a backup into an empty database"),
    "prune": ("formwright.service.cli.prune", "prune", "remove what has ended long ago"),
    "config": ("formwright.service.cli.config", "config", "every setting, and who has set it"),
    "doctor": ("formwright.service.cli.doctor", "doctor", "what is installed, what answers"),
    "completion": ("formwright.service.cli.completion", "completion", "a script for your shell"),
}
# the beginning of a module -> the extra that its commands need; the first that fits
EXTRAS = {
    "formwright.compiler": "compiler",
    "formwright.search": "search",
    "formwright.service.cli.serve": "service",
    "formwright.service.cli.backup": "service",
    "formwright.service.cli.prune": "service",
    "formwright.service": "client",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code (2 for a wrong call)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from . import __version__

        print(f"formwright {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        print(f"formwright: {unknown('command', arguments[0], COMMANDS)}", file=sys.stderr)
        return 2
    try:
        return _run(arguments[0], arguments[1:])
    except FormwrightError as error:  # before the command could say so itself
        print(f"formwright {arguments[0]}: {error}", file=sys.stderr)
        return 2


def _run(command: str, arguments: list[str]) -> int:
    module, function, _ = COMMANDS[command]
    extra = next(extra for beginning, extra in EXTRAS.items() if module.startswith(beginning))
    with needs(extra, "it"):
        code: int = getattr(import_module(module), function)(arguments)
    return code


def parser_of(command: str) -> ArgumentParser:
    """What knows the options of a command; nothing is run, and nothing slow is loaded."""
    module, function, _ = COMMANDS[command]
    if module.startswith("formwright.compiler"):  # which loads torch
        module = "formwright.parsers"
    made: ArgumentParser = getattr(import_module(module), f"{function}_parser")()
    return made


def _usage() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {what}" for name, (_, _, what) in COMMANDS.items())
    return f"usage: formwright [--version] <command> ...\n\ncommands:\n{rows}"


if __name__ == "__main__":
    sys.exit(main())
