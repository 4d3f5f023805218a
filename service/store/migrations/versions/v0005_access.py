"""Access: whose a search is, tokens, and sessions of the page."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    column = sa.Column("belongs_to", sa.String(63), nullable=False, server_default="")
    op.add_column("formwright_searches", column)
    name = op.f("ix_formwright_searches_belongs_to_key")
    op.create_index(name, "formwright_searches", ["belongs_to", "key"])
    op.create_table(
        "formwright_tokens",
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("owner", sa.String(63), nullable=False),
        sa.Column("scope", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("expires", TIME, nullable=True),
        sa.Column("revoked", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_formwright_tokens")),
    )
    op.create_table(
        "formwright_sessions",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("token", sa.String(12), nullable=False),
        sa.Column("expires", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["token"], ["formwright_tokens.id"], name=op.f("fk_formwright_sessions_token")
        ),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_formwright_sessions")),
    )
