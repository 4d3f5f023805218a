"""Artefacts: what is kept of trials, and its content by hash."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "formwright_artifacts",
        sa.Column("search_key", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("seeds", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("lease_expires", TIME, nullable=True),
        sa.Column("created", TIME, nullable=False),
        sa.Column("updated", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["search_key", "number"],
            ["formwright_trials.search_key", "formwright_trials.number"],
            name=op.f("fk_formwright_artifacts_search_key_number"),
        ),
        sa.PrimaryKeyConstraint("search_key", "number", name=op.f("pk_formwright_artifacts")),
    )
    name = op.f("ix_formwright_artifacts_state_updated")
    op.create_index(name, "formwright_artifacts", ["state", "updated"])
    op.create_table(
        "formwright_files",
        sa.Column("search_key", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(200), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["search_key", "number"],
            ["formwright_artifacts.search_key", "formwright_artifacts.number"],
            name=op.f("fk_formwright_files_search_key_number"),
        ),
        sa.PrimaryKeyConstraint("search_key", "number", "path", name=op.f("pk_formwright_files")),
    )
    op.create_index(op.f("ix_formwright_files_sha256"), "formwright_files", ["sha256"])
    op.create_table(
        "formwright_pieces",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("at", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", "at", name=op.f("pk_formwright_pieces")),
    )
