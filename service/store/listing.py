"""Lists in pages: filtered, sorted by any column of a literal table, stable while rows are added.

Next: `columns.py` for the fields, `paging.py` for the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, or_, select

from ..errors import InvalidRequest
from ..filters import parse
from .columns import (
    METRIC,
    SEARCH_COLUMNS,
    TRIAL_COLUMNS,
    Column,
    Condition,
    condition,
    order,
)
from .paging import Value, make_token, read_token
from .schema import metrics, searches, trials


@dataclass(frozen=True)
class Kind:
    """What is listed: its rows, its fields, and the column that makes every order total and is the
    order where none is asked for, downwards if `down`."""

    name: str
    rows: Callable[[], Select[Any]]
    columns: Mapping[str, Column]
    key: ColumnElement[int]
    down: bool


def _trial_rows() -> Select[Any]:
    """Where they are; what they are is read by `Ended`."""
    t = trials.c
    place = select(searches.c.id.label("search_id"), t.search_key, t.number)
    return place.select_from(trials.join(searches))


SEARCHES = Kind("searches", lambda: select(searches), SEARCH_COLUMNS, searches.c.key, True)
TRIALS = Kind("trials", _trial_rows, TRIAL_COLUMNS, trials.c.number, False)


@dataclass(frozen=True)
class Listing:
    """One list, as it was asked for. Made by `of`."""

    kind: Kind
    scope: tuple[str, ...]
    condition: Condition | None
    by: str
    down: bool

    @classmethod
    def of(cls, kind: Kind, filter: str, order_by: str, *scope: str) -> Listing:
        """`scope` is what else says which list it is. Raises InvalidRequest."""
        node = parse(filter)
        found = None if node is None else condition(node, kind.columns)
        by, down = order(order_by, kind.columns)
        scope = (kind.name, filter, order_by, *scope)
        return cls(kind, scope, found, by, down if by else kind.down)

    def page(
        self, connection: Connection, also: Sequence[Condition], size: int, token: str
    ) -> tuple[list[Row[Any]], str]:
        """At most `size` rows and the token of the next page. Raises InvalidRequest."""
        place = read_token(token, self.scope)
        statement = self.kind.rows()
        column: ColumnElement[Any] = self.kind.key
        if self.by.startswith(METRIC):
            statement, column = _with_metric(statement, self.by.removeprefix(METRIC))
        elif self.by:
            column = self.kind.columns[self.by].of
        for each in [*also, *([] if self.condition is None else [self.condition])]:
            statement = statement.where(each)
        if place is not None:
            statement = statement.where(self._behind(column, *place))
        ways = [column, self.kind.key] if column is not self.kind.key else [column]
        ordered = [way.desc() if self.down else way.asc() for way in ways]
        statement = statement.add_columns(column.label("place"), self.kind.key.label("total"))
        rows = list(connection.execute(statement.order_by(*ordered).limit(size + 1)))
        if len(rows) <= size:
            return rows, ""
        last = rows[size - 1]
        return rows[:size], make_token((_plain(last.place), last.total), self.scope)

    def _behind(self, column: ColumnElement[Any], value: Value, key: int) -> Condition:
        """Behind a place, in the order of the list."""
        given = _read(column, value)
        if self.down:
            return or_(column < given, and_(column == given, self.kind.key < key))
        return or_(column > given, and_(column == given, self.kind.key > key))


def _with_metric(statement: Select[Any], name: str) -> tuple[Select[Any], ColumnElement[Any]]:
    """Beside the value of a metric; a trial without one is left out."""
    one_metric = metrics.alias()
    m = one_metric.c
    one = and_(m.search_key == trials.c.search_key, m.metric == name, m.number == trials.c.number)
    return statement.join(one_metric, one), m.value


def _plain(value: Any) -> Value:
    plain: Value = value.isoformat() if isinstance(value, datetime) else value
    return plain


def _read(column: ColumnElement[Any], value: Value) -> Any:
    """What `_plain` made plain. Raises InvalidRequest for what was never in the column: tokens come
    from outside."""
    kind = column.type.python_type
    if kind is datetime and isinstance(value, str):
        with suppress(ValueError, OverflowError):
            time = datetime.fromisoformat(value)
            if time.tzinfo is not None:
                return time.astimezone(UTC)
    elif kind is float and isinstance(value, int | float):
        return float(value)
    elif type(value) is kind:
        return value
    raise InvalidRequest("not a page token of this list; leave it empty to begin", "page_token")
