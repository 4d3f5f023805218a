"""Tables for people, and the same rows as JSON lines, YAML or CSV for programs (`-o`).

It must not know the server. Next: `look.py`.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable

from rich.console import Console, RenderableType

from ..rows import Row, flat
from .common import add_setting


def add_format(to: argparse.ArgumentParser) -> None:
    """The option `-o`."""
    add_setting(to, "output", "-o")


def show(
    given: argparse.Namespace,
    console: Console,
    rows: Iterable[Row],
    table: Callable[[], RenderableType],
) -> None:
    """As `-o` asks for; `table` is made only where it is."""
    if given.output == "table":
        console.print(table())
    else:
        WRITERS[given.output](rows)


def _json(rows: Iterable[Row]) -> None:
    for row in rows:
        print(json.dumps(row, sort_keys=True))


def _yaml(rows: Iterable[Row]) -> None:
    import yaml

    for row in rows:  # a list, one entry after the other
        yaml.safe_dump([json.loads(json.dumps(row))], sys.stdout, sort_keys=True)


def _csv(rows: Iterable[Row]) -> None:
    """Mappings of numbers become columns of their own, other values that are no text JSON."""
    cells = [dict(flat(row)) for row in rows]
    columns = dict.fromkeys(name for row in cells for name in row)
    writer = csv.DictWriter(sys.stdout, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)


WRITERS: dict[str, Callable[[Iterable[Row]], None]] = {"json": _json, "yaml": _yaml, "csv": _csv}
