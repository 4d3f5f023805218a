"""Tables for people, and the same rows as JSON lines, YAML or CSV for programs (`-o`).

It must not know the server. Next: `look.py`.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType

from .common import add_setting

if TYPE_CHECKING:
    from ..records import SearchRecord, TrialRecord

Row = Mapping[str, Any]


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


def search_row(search: SearchRecord) -> Row:
    """A search for programs."""
    from ..convert import to_etag  # loads protobuf, which a parser does not need

    return {
        "search": search.id,
        "display_name": search.display_name,
        "state": search.state.value,
        "error": search.error,
        "priority": search.priority,
        "etag": to_etag(search.revision),
        "trials": {state.value: count for state, count in search.counts.items()},
        "spec": search.spec.to_dict(),
        "created": search.created.isoformat(),
        "updated": search.updated.isoformat(),
    }


def trial_row(trial: TrialRecord) -> Row:
    """A trial for programs."""
    return {
        "search": trial.search_id,
        "number": trial.number,
        "state": trial.state.value,
        "attempt": trial.attempt,
        "rung": trial.rung,
        "metrics": dict(trial.values),
        "machine": trial.machine,
        "error": trial.error,
        "fingerprint": trial.fingerprint,
        "architecture": trial.architecture.to_dict(),
        "details": dict(trial.details),
    }


def _json(rows: Iterable[Row]) -> None:
    for row in rows:
        print(json.dumps(row, sort_keys=True))


def _yaml(rows: Iterable[Row]) -> None:
    import yaml

    for row in rows:  # a list, one entry after the other
        yaml.safe_dump([json.loads(json.dumps(row))], sys.stdout, sort_keys=True)


def _csv(rows: Iterable[Row]) -> None:
    """Mappings of numbers become columns of their own, other values that are no text JSON."""
    flat = [dict(_flat(row)) for row in rows]
    columns = dict.fromkeys(name for row in flat for name in row)
    writer = csv.DictWriter(sys.stdout, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)


def _flat(row: Row) -> Iterable[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Mapping) and all(isinstance(v, int | float) for v in value.values()):
            yield from ((f"{name}.{part}", number) for part, number in value.items())
        else:
            plain = isinstance(value, str | int | float)
            yield name, value if plain else json.dumps(value, sort_keys=True)


WRITERS: dict[str, Callable[[Iterable[Row]], None]] = {"json": _json, "yaml": _yaml, "csv": _csv}
