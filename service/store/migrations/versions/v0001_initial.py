"""The tables of the first release. It must not import `schema.py`, which goes on without it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _searches()
    _trials()
    _events()


def _searches() -> None:
    op.create_table(
        "formwright_searches",
        sa.Column("key", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("lease_expires", TIME, nullable=True),
        sa.Column("last_sequence", sa.Integer(), nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("updated", TIME, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_formwright_searches")),
        sa.UniqueConstraint("id", name=op.f("uq_formwright_searches_id")),
        sa.UniqueConstraint("request_id", name=op.f("uq_formwright_searches_request_id")),
    )
    name = op.f("ix_formwright_searches_state_key")
    op.create_index(name, "formwright_searches", ["state", "key"])


def _trials() -> None:
    op.create_table(
        "formwright_architectures",
        sa.Column("fingerprint", sa.String(80), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_formwright_architectures")),
    )
    op.create_table(
        "formwright_trials",
        sa.Column("search_key", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(80), nullable=False),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("updated", TIME, nullable=False),
        sa.PrimaryKeyConstraint("search_key", "number", name=op.f("pk_formwright_trials")),
        sa.ForeignKeyConstraint(
            ["search_key"],
            ["formwright_searches.key"],
            name=op.f("fk_formwright_trials_search_key"),
        ),
        sa.ForeignKeyConstraint(
            ["fingerprint"],
            ["formwright_architectures.fingerprint"],
            name=op.f("fk_formwright_trials_fingerprint"),
        ),
    )
    name = op.f("ix_formwright_trials_search_key_state")
    op.create_index(name, "formwright_trials", ["search_key", "state"])
    op.create_table(
        "formwright_metrics",
        sa.Column("search_key", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("metric", sa.String(64), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint(
            "search_key", "number", "metric", name=op.f("pk_formwright_metrics")
        ),
        sa.ForeignKeyConstraint(
            ["search_key", "number"],
            ["formwright_trials.search_key", "formwright_trials.number"],
            name=op.f("fk_formwright_metrics_search_key_number"),
        ),
    )
    name = op.f("ix_formwright_metrics_search_key_metric_value")
    op.create_index(name, "formwright_metrics", ["search_key", "metric", "value"])


def _events() -> None:
    op.create_table(
        "formwright_events",
        sa.Column("search_key", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("time", TIME, nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("search_key", "sequence", name=op.f("pk_formwright_events")),
        sa.ForeignKeyConstraint(
            ["search_key"],
            ["formwright_searches.key"],
            name=op.f("fk_formwright_events_search_key"),
        ),
        sa.ForeignKeyConstraint(
            ["search_key", "number"],
            ["formwright_trials.search_key", "formwright_trials.number"],
            name=op.f("fk_formwright_events_search_key_number"),
        ),
    )
