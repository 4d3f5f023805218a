"""What has been measured before, so that nobody measures it again.

Next: `trial_log.py`, which asks.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection, select

from ...search import SearchSpec, Trial, TrialState
from ..errors import InternalError
from .queries import trials_of
from .schema import searches, trials

ANSWERS = 256  # trials of one architecture that are looked at
log = logging.getLogger("formwright.service")


def measured_before(
    connection: Connection, fingerprint: str, but: str
) -> list[tuple[str, SearchSpec, Trial]]:
    """Trials of other searches than `but`, of the same owner, that have succeeded with this
    architecture: their names, the specs of their searches and they themselves, the newest first."""
    t = trials.c
    mine = select(searches.c.belongs_to).where(searches.c.id == but).scalar_subquery()
    of_others = (t.fingerprint == fingerprint) & (t.state == TrialState.SUCCEEDED.value)
    statement = (
        select(t.search_key, t.number, searches.c.id, searches.c.spec)
        .select_from(trials.join(searches))
        .where(of_others, searches.c.id != but, searches.c.belongs_to == mine)
        .order_by(t.search_key.desc())
        .limit(ANSWERS)
    )
    found = []
    for row in connection.execute(statement).all():
        name = f"searches/{row.id}/trials/{row.number}"
        try:
            (trial,) = trials_of(connection, row.search_key, t.number == row.number)
            found.append((name, SearchSpec.from_json(row.spec), trial))
        except (InternalError, ValueError) as error:
            log.warning("left out: %s: %s", name, error)
    return found
