"""What lists may be filtered and sorted by: literal tables of fields, and filters as SQL.

Nothing of what a user writes becomes SQL but through these tables and bound values. It must not
know the grammar. Next: `../filters.py`, which has it; `paging.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, not_, or_, select, true

from ...errors import unknown
from ...search import METRICS, TrialState
from ..errors import InvalidRequest
from ..filters import And, Compare, Node, Not, Or
from ..records import SearchState
from .schema import metrics, searches, trials

Condition = ColumnElement[bool]
METRIC = "metrics."


def _text(given: str) -> str:
    return given


def _whole(given: str) -> int:
    number = int(given)
    if abs(number) >= 2**31:
        raise ValueError
    return number


def _number(given: str) -> float:
    number = float(given)
    if not math.isfinite(number):
        raise ValueError
    return number


def _time(given: str) -> datetime:
    time = datetime.fromisoformat(given)
    if time.tzinfo is None:
        raise ValueError
    return time.astimezone(UTC)


def _one_of(names: Sequence[str]) -> Callable[[str], str]:
    def read(given: str) -> str:
        if given not in names:
            raise ValueError
        return given

    return read


@dataclass(frozen=True)
class Column:
    """`read` makes a value of what was written, or raises ValueError; `wanted` says of what form.
    Text may be asked for a part of it by `:`."""

    of: ColumnElement[Any]
    read: Callable[[str], Any]
    wanted: str


def _columns(table: Any, states: Sequence[str], **rows: tuple[str, Any, str]) -> dict[str, Column]:
    made = {name: Column(table.c[of], read, wanted) for name, (of, read, wanted) in rows.items()}
    return {"state": Column(table.c.state, _one_of(states), " or ".join(states))} | made


_STAMP = 'a time with its zone, as "2026-01-31T12:00:00Z"'
SEARCH_COLUMNS: Mapping[str, Column] = _columns(
    searches,
    [state.value for state in SearchState],
    space=("space", _text, "the name of a space"),
    task=("task", _text, "the name of a task"),
    display_name=("display_name", _text, "text"),
    priority=("priority", _whole, "a whole number"),
    owner=("belongs_to", _text, "the name of an owner"),
    create_time=("created", _time, _STAMP),
    update_time=("updated", _time, _STAMP),
)
TRIAL_COLUMNS: Mapping[str, Column] = _columns(
    trials,
    [state.value for state in TrialState],
    number=("number", _whole, "a whole number"),
    attempt=("attempt", _whole, "a whole number"),
    rung=("rung", _whole, "a whole number"),
    machine=("machine", _text, "the fingerprint of a machine"),
    fingerprint=("fingerprint", _text, "the fingerprint of an architecture"),
    error=("error", _text, "text"),
    create_time=("created", _time, _STAMP),
    update_time=("updated", _time, _STAMP),
)
_COMPARE: Mapping[str, Callable[[Any, Any], Condition]] = {
    "=": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
}


def condition(node: Node, columns: Mapping[str, Column], field: str = "filter") -> Condition:
    """The filter as SQL. Raises InvalidRequest for a field or a value that is not known here."""
    if isinstance(node, And | Or | Not):
        parts = [condition(part, columns, field) for part in node.parts]
        return not_(parts[0]) if isinstance(node, Not) else _JOIN[type(node)](*parts)
    if not isinstance(node, Compare):
        raise TypeError(f"{node!r} is no part of a filter")
    if node.field.startswith(METRIC) and columns is TRIAL_COLUMNS:
        return _measured(node, field)
    column = columns.get(node.field)
    if column is None:
        known = [*columns, *([f"{METRIC}NAME"] if columns is TRIAL_COLUMNS else [])]
        raise _wrong(node, unknown("field", node.field, known), field)
    if node.operator == ":":
        if column.read is not _text:
            raise _wrong(node, f"{node.field} can be compared, not searched with ':'", field)
        # LIKE would know upper and lower case on one database and not on the other
        rest = func.replace(column.of, node.value, "")
        return rest != column.of if node.value else true()
    return _COMPARE[node.operator](column.of, _value(node, column.read, column.wanted, field))


_JOIN: Mapping[type[Node], Callable[..., Condition]] = {And: and_, Or: or_}


def _measured(node: Compare, field: str) -> Condition:
    """Of a trial that has the metric: one without it meets no comparison."""
    name = node.field.removeprefix(METRIC)
    if name not in METRICS:
        raise _wrong(node, unknown("metric", name, METRICS), field)
    if node.operator == ":":
        raise _wrong(node, f"{node.field} can be compared, not searched with ':'", field)
    m = metrics.alias().c  # an order by a metric joins the table itself
    value = _value(node, _number, "a number", field)
    return exists(
        select(1).where(
            m.search_key == trials.c.search_key,
            m.metric == name,
            m.number == trials.c.number,
            _COMPARE[node.operator](m.value, value),
        )
    )


def _value(node: Compare, read: Callable[[str], Any], wanted: str, field: str) -> Any:
    try:
        return read(node.value)
    except (ValueError, OverflowError):
        said = f"{node.field} is {wanted}, not {node.value[:50]!r}"
        raise _wrong(node, said, field) from None


def _wrong(node: Compare, what: str, field: str) -> InvalidRequest:
    return InvalidRequest(f"at character {node.at + 1}: {what}", field)


_ORDER = re.compile(r"\s*([\w.]+)(?:\s+(asc|desc))?\s*", re.ASCII)


def order(text: str, columns: Mapping[str, Column], field: str = "order_by") -> tuple[str, bool]:
    """The field to sort by and whether downwards, as in "create_time desc" (AIP-132, one field);
    ("", False) if the text is empty. Raises InvalidRequest."""
    if not text.strip():
        return "", False
    found = _ORDER.fullmatch(text)
    if found is None:
        raise InvalidRequest(f"{text[:50]!r}: wanted a field, as in 'create_time desc'", field)
    name, way = found[1], found[2] == "desc"
    is_metric = columns is TRIAL_COLUMNS and name.removeprefix(METRIC) in METRICS
    if name not in columns and not (is_metric and name.startswith(METRIC)):
        known = [*columns, *([f"{METRIC}{m}" for m in METRICS] if columns is TRIAL_COLUMNS else [])]
        raise InvalidRequest(unknown("field", name, known), field)
    return name, way
