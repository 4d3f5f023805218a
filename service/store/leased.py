"""What a lease is, in every table that has one: columns `state`, `owner` and `lease_expires`. Who
is QUEUED waits, and who is RUNNING is held until the lease ends.

It must not know what is leased. Next: `claims.py`, `artifacts.py`.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Table, Update, and_, or_, update

WAITING, HELD = "QUEUED", "RUNNING"


def claimable(table: Table, now: datetime) -> ColumnElement[bool]:
    """Who waits, or whose holder let the lease end."""
    c = table.c
    left = or_(c.lease_expires.is_(None), c.lease_expires <= now)
    return or_(c.state == WAITING, and_(c.state == HELD, left))


def released(table: Table, owner: str) -> Update:
    """All that this owner holds can be claimed at once."""
    held = and_(table.c.owner == owner, table.c.state == HELD)
    return update(table).where(held).values(owner="", lease_expires=None)
