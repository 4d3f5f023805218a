"""The store: searches, trials, events and leases in SQLite or PostgreSQL. It is the only truth;
processes and workers may be lost at any moment.

The only part that may import SQLAlchemy and alembic. The flow: `store.py` -> `queries.py` (reads)
and `writes.py` -> `schema.py`; `engine.py` opens transactions, `migrate.py` makes the tables.
"""

from __future__ import annotations

from ...extras import needs

with needs("service", "the store"):
    from .store import Store, open_store

__all__ = ["Store", "open_store"]
