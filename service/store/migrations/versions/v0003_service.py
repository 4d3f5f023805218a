"""What a team asks for: priorities, counts and fronts that are kept, requests by their ids.

It must not import `schema.py` or the search, which go on without it: the directions and objectives
that fronts of older searches need are written out here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None

TIME = sa.DateTime(timezone=True)
STATES = ("PENDING", "RUNNING", "SUCCEEDED", "PRUNED", "FAILED")
OBJECTIVES = ("quality", "latency_ms", "params")  # where a spec names none
UP = ("quality", "throughput")
OF_MACHINE = (
    *("latency_ms", "latency_p95_ms", "latency_ratio"),
    *("throughput", "decode_ms", "peak_bytes"),
)
FIXED = ("search_key", "number")


def upgrade() -> None:
    _searches()
    _trials()
    _metrics()
    _requests()
    _front()
    name = op.f("ix_formwright_events_search_key_number")
    op.create_index(name, "formwright_events", ["search_key", "number"])
    connection = op.get_bind()
    searches = sa.text("SELECT key, spec, display_name FROM formwright_searches")
    for key, spec, shown in connection.execute(searches).all():
        asked = hashlib.sha256(repr((spec, shown, 0)).encode()).hexdigest()
        told = sa.text("UPDATE formwright_searches SET asked = :asked WHERE key = :key")
        connection.execute(told, {"asked": asked, "key": key})
        _count(connection, key)
        _fill(connection, key, spec)


def _searches() -> None:
    columns: list[sa.Column[Any]] = [
        sa.Column("priority", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("asked", sa.String(64), nullable=False, server_default=""),
        sa.Column("revision", sa.Integer(), nullable=False, server_default="1"),
    ]
    for state in STATES:
        columns.append(sa.Column(state.lower(), sa.Integer(), nullable=False, server_default="0"))
    for column in columns:
        op.add_column("formwright_searches", column)
    op.drop_index(op.f("ix_formwright_searches_state_key"), "formwright_searches")
    name = op.f("ix_formwright_searches_state_priority_key")
    op.create_index(name, "formwright_searches", ["state", "priority", "key"])


def _trials() -> None:
    machine = sa.Column("machine", sa.String(80), nullable=False, server_default="")
    op.add_column("formwright_trials", machine)


def _metrics() -> None:
    """The same rows in another order, and without a second key beside it on SQLite."""
    old = "formwright_metrics_0002"
    op.rename_table("formwright_metrics", old)
    op.drop_index(op.f("ix_formwright_metrics_search_key_metric_value"), old)
    if op.get_bind().dialect.name == "postgresql":  # names of constraints are the schema's there
        op.drop_constraint("pk_formwright_metrics", old)
        op.drop_constraint("fk_formwright_metrics_search_key_number", old)
    op.create_table(
        "formwright_metrics",
        sa.Column("search_key", sa.Integer(), nullable=False),
        sa.Column("metric", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint(
            "search_key", "metric", "number", name=op.f("pk_formwright_metrics")
        ),
        _of_trial("metrics"),
        sqlite_with_rowid=False,
    )
    same = "search_key, metric, number, value"
    op.execute(f"INSERT INTO formwright_metrics ({same}) SELECT {same} FROM {old}")
    op.drop_table(old)
    for columns in (["search_key", "metric", "value"], ["search_key", "number"]):
        name = op.f(f"ix_formwright_metrics_{'_'.join(columns)}")
        op.create_index(name, "formwright_metrics", columns)


def _requests() -> None:
    op.create_table(
        "formwright_requests",
        sa.Column("id", sa.String(100), nullable=False),
        sa.Column("method", sa.String(32), nullable=False),
        sa.Column("asked", sa.String(64), nullable=False),
        sa.Column("result", sa.String(64), nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_formwright_requests")),
    )


def _front() -> None:
    op.create_table(
        "formwright_front",
        sa.Column("search_key", sa.Integer(), nullable=False),
        sa.Column("machine", sa.String(80), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(
            "search_key", "machine", "number", name=op.f("pk_formwright_front")
        ),
        _of_trial("front"),
    )


def _of_trial(table: str) -> sa.ForeignKeyConstraint:
    referred = [f"formwright_trials.{name}" for name in FIXED]
    name = op.f(f"fk_formwright_{table}_search_key_number")
    return sa.ForeignKeyConstraint(list(FIXED), referred, name=name)


def _count(connection: sa.Connection, key: int) -> None:
    counted = sa.text(
        "SELECT state, count(*) FROM formwright_trials WHERE search_key = :key GROUP BY state"
    )
    for state, count in connection.execute(counted, {"key": key}).all():
        if state in STATES:
            new = sa.text(f"UPDATE formwright_searches SET {state.lower()} = :n WHERE key = :key")
            connection.execute(new, {"n": count, "key": key})


def _fill(connection: sa.Connection, key: int, spec: str) -> None:
    """The machines of a search's trials, and its front. What cannot be read has none."""
    read = sa.text("SELECT number, state, details FROM formwright_trials WHERE search_key = :key")
    machines, done = {}, []
    for number, state, details in connection.execute(read, {"key": key}).all():
        machines[number] = _machine(details)
        if state == "SUCCEEDED":
            done.append(number)
    new = sa.text(
        "UPDATE formwright_trials SET machine = :machine WHERE search_key = :key AND number = :n"
    )
    told = [{"key": key, "n": n, "machine": machine} for n, machine in machines.items() if machine]
    if told:
        connection.execute(new, told)
    measured = sa.text("SELECT number, metric, value FROM formwright_metrics WHERE search_key = :k")
    values: dict[int, dict[str, float]] = {}
    for number, metric, value in connection.execute(measured, {"k": key}).all():
        values.setdefault(number, {})[metric] = value
    objectives = _objectives(spec)
    timed = any(name in OF_MACHINE for name in objectives)
    groups: dict[str, dict[int, tuple[float, ...]]] = {}
    for number in done:
        found = values.get(number, {})
        if all(name in found for name in objectives):
            costs = tuple(-found[n] if n in UP else found[n] for n in objectives)
            groups.setdefault(machines[number] if timed else "", {})[number] = costs
    rows = [
        {"search_key": key, "machine": machine, "number": number}
        for machine, costs in groups.items()
        for number in undominated(costs)
    ]
    if rows:
        insert = sa.text(
            "INSERT INTO formwright_front (search_key, machine, number)"
            " VALUES (:search_key, :machine, :number)"
        )
        connection.execute(insert, rows)


def undominated(costs: Mapping[int, tuple[float, ...]]) -> list[int]:
    """In cost order whoever beats somebody stands before it."""
    front: list[int] = []
    for number in sorted(costs, key=lambda n: costs[n]):
        mine = costs[number]
        beaten = any(
            mine != costs[other] and all(x <= y for x, y in zip(costs[other], mine, strict=True))
            for other in front
        )
        if not beaten:
            front.append(number)
    return front


def _objectives(spec: str) -> Sequence[str]:
    read = _read(spec).get("objectives")
    named = isinstance(read, list) and bool(read) and all(isinstance(name, str) for name in read)
    return read if named and isinstance(read, list) else OBJECTIVES


def _machine(details: str) -> str:
    machine = _read(details).get("machine")
    return str(machine.get("fingerprint", "")) if isinstance(machine, dict) else ""


def _read(text: str) -> dict[str, Any]:
    try:
        read = json.loads(text)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}
