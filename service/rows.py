"""Records as rows for programs: mappings of names to plain values, and flat ones for tables.

It must not know who prints them. Next: `cli/output.py`, `results.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .records import SearchRecord, TrialRecord

Row = Mapping[str, Any]


def search_row(search: SearchRecord) -> Row:
    """A search for programs."""
    from .convert import to_etag  # loads protobuf, which a parser does not need

    return {
        "search": search.id,
        "display_name": search.display_name,
        "owner": search.owner,
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


def flat(row: Row) -> Iterable[tuple[str, Any]]:
    """The cells of a row: mappings of numbers become columns of their own, other values that are
    no text JSON."""
    for name, value in row.items():
        if isinstance(value, Mapping) and all(isinstance(v, int | float) for v in value.values()):
            yield from ((f"{name}.{part}", number) for part, number in value.items())
        else:
            plain = isinstance(value, str | int | float)
            yield name, value if plain else json.dumps(value, sort_keys=True)
