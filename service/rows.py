"""Records as rows for programs: mappings of names to plain values, and flat ones for tables.

`OF_TRIAL` and `OF_SEARCH` are the one place that says what a row has. It must not know who prints
them. Next: `cli/output.py`, `results.py`, `exports.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..search import METRICS, machine_of

if TYPE_CHECKING:
    from ..search import Trial
    from .records import SearchRecord, TrialRecord

_json = json.JSONEncoder(sort_keys=True, default=dict).encode
Row = Mapping[str, Any]
Table = dict[str, list[Any]]  # column -> its cells, one for each row

OF_TRIAL: Mapping[str, Callable[[Any], Any]] = {
    "search": lambda trial: trial.search_id,
    "number": lambda trial: trial.number,
    "state": lambda trial: trial.state.value,
    "attempt": lambda trial: trial.attempt,
    "rung": lambda trial: trial.rung,
    "metrics": lambda trial: dict(trial.values),
    "params": lambda trial: dict(trial.params),
    "machine": lambda trial: machine_of(trial),
    "error": lambda trial: trial.error,
    "fingerprint": lambda trial: trial.architecture.fingerprint(),
    "architecture": lambda trial: trial.architecture.to_dict(),
    "details": lambda trial: dict(trial.details),
    "created": lambda trial: trial.created.isoformat(),
    "updated": lambda trial: trial.updated.isoformat(),
}
OF_SEARCH: Mapping[str, Callable[[Any], Any]] = {
    "search": lambda search: search.id,
    "display_name": lambda search: search.display_name,
    "owner": lambda search: search.owner,
    "state": lambda search: search.state.value,
    "error": lambda search: search.error,
    "priority": lambda search: search.priority,
    "etag": lambda search: _etag_of(search),
    "trials": lambda search: {state.value: count for state, count in search.counts.items()},
    "spec": lambda search: search.spec.to_dict(),
    "created": lambda search: search.created.isoformat(),
    "updated": lambda search: search.updated.isoformat(),
}
OF_SERVICE = ("search", "created", "updated")  # what a trial has only where a service keeps it
SPLIT = ("metrics", "params", "trials")  # in a table each of their parts has a column of its own
# in a table these are text, made without the mapping in between
TEXTS: Mapping[str, Callable[[Any], str]] = {
    "architecture": lambda trial: trial.architecture.to_json(),
    "details": lambda trial: _json(trial.details),
}


def search_row(search: SearchRecord) -> Row:
    """A search for programs."""
    return {name: read(search) for name, read in OF_SEARCH.items()}


def trial_row(trial: TrialRecord) -> Row:
    """A trial for programs."""
    return {name: read(trial) for name, read in OF_TRIAL.items()}


def flat(row: Row) -> Iterable[tuple[str, Any]]:
    """The cells of a row: metrics, genes and counts have columns of their own, other values that
    are no text and no number are JSON."""
    for name, value in row.items():
        if name in SPLIT:
            yield from ((f"{name}.{part}", cell) for part, cell in value.items())
        else:
            yield name, value if isinstance(value, str | int | float) else _json(value)


def trials_as_table(trials: Sequence[TrialRecord] | Sequence[Trial], of_service: bool) -> Table:
    """The same columns whatever the trials are, in the same order, but for the parts that none has:
    metrics in the order of their table, genes by name. What a trial does not have is None."""
    made: Table = {}
    for name, read in OF_TRIAL.items():
        if name in OF_SERVICE and not of_service:
            continue
        if name not in SPLIT:
            read = TEXTS.get(name, read)
            made[name] = [read(trial) for trial in trials]
            continue
        cells = [trial.values if name == "metrics" else trial.params for trial in trials]
        found = sorted(set().union(*cells))
        known = [part for part in METRICS if part in found] if name == "metrics" else []
        for part in dict.fromkeys([*known, *found]):
            made[f"{name}.{part}"] = [cell.get(part) for cell in cells]
    return made


def _etag_of(search: SearchRecord) -> str:
    from .convert import to_etag  # loads protobuf, which a parser does not need

    return to_etag(search.revision)
