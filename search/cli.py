"""`formwright blocks`, `spaces` and `describe`: what there is, and what one architecture is.

It must not know how anything is searched. Next: `blocks/`, `space/`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from rich.console import Console
from rich.table import Table

from .errors import SearchError, SpecError
from .space import SPACES, Space
from .spec import ArchSpec

if TYPE_CHECKING:
    from .blocks import Block


def blocks_parser() -> argparse.ArgumentParser:
    return _parser("blocks", "The blocks that a layer is made of.")


def blocks(arguments: list[str]) -> int:
    """Exit code 0 with the table on standard output, 2 for a name that is not known."""
    from .blocks import BLOCKS  # loads torch, which the parsers do not need

    given = blocks_parser().parse_args(arguments)
    try:
        rows = [_row(BLOCKS.load(name)) for name in given.names or BLOCKS.names()]
    except SearchError as error:
        return _refuse("blocks", str(error))
    return _show(given, rows, ("symbol", "name", "kind", "sees", "settings", "source"))


def spaces_parser() -> argparse.ArgumentParser:
    return _parser("spaces", "The spaces that are searched.")


def spaces(arguments: list[str]) -> int:
    """As `blocks`, for the spaces."""
    given = spaces_parser().parse_args(arguments)
    rows: list[dict[str, Any]] = []
    try:
        for space in map(SPACES.load, given.names or SPACES.names()):
            genes = {gene.name: list(gene.choices) for gene in space.genes}
            rows.append({"name": space.name, "genes": genes, "size": _size(space)})
    except SearchError as error:
        return _refuse("spaces", str(error))
    return _show(given, rows, ("name", "size", "genes"))


def _size(space: Space) -> int | str:
    try:
        return space.size()
    except SpecError:
        return "too many to count"


def describe_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "formwright describe", description="The parts of an architecture and what they cost."
    )
    said = "a file with its JSON, or the JSON; - for standard input"
    parser.add_argument("spec", metavar="FILE", help=said)
    parser.add_argument("--svg", metavar="FILE", type=Path, help="draw it there")
    parser.add_argument("--json", action="store_true", help="one JSON object a part")
    return parser


def describe(arguments: list[str]) -> int:
    """Exit code 0 with the parts of an architecture and what they cost, 2 for what is none."""
    from .blocks.cost import Cost
    from .describe import pattern, rows
    from .drawing import draw

    given = describe_parser().parse_args(arguments)
    try:
        spec = ArchSpec.from_json(_read(given.spec))
        parts = rows(spec)
        if given.svg:
            given.svg.write_text(draw(spec), encoding="utf-8")
    except (SearchError, OSError, UnicodeDecodeError) as error:
        return _refuse("describe", str(error))
    shown = [{**asdict(part), **asdict(part.cost)} for part in parts]
    columns = ("path", "what", "settings", "width", "grid", "params", "flops", "state")
    code = _show(given, shown, columns)
    if not given.json:
        total = sum((part.cost for part in parts), Cost())
        print(
            f"{pattern(spec)}\n{total.params:,} parameters, {total.flops:,} operations and "
            f"{total.activations:,} numbers written for one input; {total.state:,} numbers kept"
        )
        print(spec.fingerprint())
    return code


def _read(given: str) -> str:
    if given == "-":
        return sys.stdin.read()
    return given if given.lstrip().startswith("{") else Path(given).read_text(encoding="utf-8")


NAMES = ("symbol", "name", "path", "what")  # columns that are not broken
SEES = {"always": "earlier tokens", "never": "all tokens", "either": "as the site asks"}


def _row(block: Block) -> dict[str, Any]:
    hints = get_type_hints(block.config)
    return {
        "symbol": block.symbol,
        "name": block.name,
        "kind": block.kind.value,
        "sees": SEES[block.causal] if block.kind == "mixer" else "its own token",
        "settings": {f.name: hints[f.name].__name__ for f in fields(block.config)},
        "source": block.source,
    }


def _parser(command: str, what: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"formwright {command}", description=what)
    parser.add_argument("names", nargs="*", help="only these")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser


def _show(
    given: argparse.Namespace, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]
) -> int:
    if given.json:
        for row in rows:
            print(json.dumps(row))
        return 0
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in NAMES)
    for row in rows:
        table.add_row(*(_text(row[column]) for column in columns))
    Console(highlight=False).print(table)
    return 0


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(of)}" for name, of in value.items()) or "none"
    if isinstance(value, list):
        return "|".join(map(str, value))
    if isinstance(value, tuple):
        return " x ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _refuse(command: str, reason: str) -> int:
    print(f"formwright {command}: {reason}", file=sys.stderr)
    return 2
