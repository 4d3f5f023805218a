"""`formwright config`: every setting, its value, and whether an option's default, the environment
or which file has set it. Next: `../settings.py`, the table; `../configured.py`.
"""

from __future__ import annotations

import argparse

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..configured import Value, resolve_all
from ..rows import Row
from ..settings import SETTINGS
from .common import parser, run
from .output import add_format, show

COLUMNS = ("setting", "value", "from", "environment", "key")


def config_parser() -> argparse.ArgumentParser:
    made = parser("config", "Every setting, its value, and where it comes from.", server=False)
    add_format(made)
    made.add_argument("--markdown", action="store_true", help="the table of the documentation")
    return made


def config(arguments: list[str]) -> int:
    return run(config_parser(), arguments, _config)


def _config(given: argparse.Namespace, console: Console) -> int:
    if given.markdown:
        print(markdown())
        return 0
    rows = [_row(name, value) for name, value in resolve_all().items()]
    show(given, console, rows, lambda: _table(rows))
    return 0


def _row(name: str, value: Value) -> Row:
    setting = SETTINGS[name]
    texts = (name, value.shown(), value.source, setting.variable, setting.key)
    return dict(zip(COLUMNS, texts, strict=True))


def _table(rows: list[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in COLUMNS:
        table.add_column(name, overflow="fold", no_wrap=name == "environment")
    for row in rows:
        table.add_row(*(Text(str(row[name])) for name in COLUMNS))
    return table


def markdown() -> str:
    """The table of docs/service.md."""
    lines = ["| setting | type | default | environment | in the file | |", "|---" * 6 + "|"]
    for name, row in SETTINGS.items():
        default = f"`{row.default}`" if row.default != "" else ""
        key = f"`{row.key}`" if row.key else ""
        kind = " \\| ".join(row.choices) or row.kind.__name__
        cells = (f"`{name}`", kind, default, f"`{row.variable}`", key, row.meaning)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
