"""The report as a table for people. It must not decide anything: `report.py` holds the facts."""

from __future__ import annotations

import io
from collections import Counter

from rich import box
from rich.console import Console, ConsoleRenderable, Group
from rich.table import Table
from rich.text import Text

from .report import Decline, Report

WIDTH = 110


def render(report: Report) -> str:
    """`str(report)`: a summary line, a row per pass, and a row per reason that a site was left."""
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False)
    parts: list[ConsoleRenderable] = [_summary(report), _passes(report)]
    declined = [(p.name, d) for p in report.passes for d in p.declined]
    if declined:
        parts.append(_declines(declined))
    console.print(Group(*parts))
    stream = console.file
    assert isinstance(stream, io.StringIO)
    return stream.getvalue().rstrip()


def _summary(report: Report) -> Text:
    states = Counter(v.state for v in report.variants)
    variants = ", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "none"
    graphs = f"{report.graphs} graph{'s' * (report.graphs != 1)}"
    prepared = f"{report.prepared_bytes:,} bytes"
    return Text(f"{graphs} · variants: {variants} · prepared weights: {prepared}")


def _passes(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column("pass")
    for name in ("sites", "rewritten", "declined", "ms"):
        table.add_column(name, justify="right")
    for row in report.passes:
        table.add_row(
            row.name, str(row.sites), str(row.rewritten), str(len(row.declined)), f"{row.ms:.1f}"
        )
    return table


def _declines(declined: list[tuple[str, Decline]]) -> Table:
    """Equal reasons are one row: the first place in full, and how many more there are."""
    table = Table(box=box.SIMPLE_HEAD, title="left as it was", title_justify="left", pad_edge=False)
    for name in ("pass", "code", "where"):
        table.add_column(name, no_wrap=name == "code")
    table.add_column("reason", ratio=1)
    groups: dict[tuple[str, str, str], list[Decline]] = {}
    for name, d in declined:
        groups.setdefault((name, d.code.value, d.reason), []).append(d)
    for (name, code, reason), sites in groups.items():
        first = sites[0]
        place = first.where or ("(graph)" if first.op in ("graph", "") else "(root)")
        if first.source:
            place += f"\n{_tail(first.source)}"
        if len(sites) > 1:
            place += f"\n… and {len(sites) - 1} more"
        table.add_row(name, code, place, reason)
    return table


def _tail(source: str) -> str:
    """`a/long/path/to/file.py:12` -> `to/file.py:12`."""
    return "/".join(source.split("/")[-2:])
