"""The rung of a trial, and trials by architecture: what one search has measured answers another."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    rung = sa.Column("rung", sa.Integer(), nullable=False, server_default="0")
    op.add_column("formwright_trials", rung)
    name = op.f("ix_formwright_trials_fingerprint_state")
    op.create_index(name, "formwright_trials", ["fingerprint", "state"])
