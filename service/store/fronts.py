"""The front of each search, kept as its trials end: who joins it, and who leaves it for that.

Among what one machine has measured where an objective is of a machine, else among all. A part of
the caller's transaction. It must not know how a front is asked for. Next: `trial_log.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from ...search import METRICS, SearchSpec, Trial, joins, machine_of
from .schema import front

Fronts = dict[str, list[Trial]]  # by machine; "" where no objective is of one


class FrontKeeper:
    """What stands on the fronts of one search, as of the transaction that `read` it."""

    def __init__(self, spec: SearchSpec) -> None:
        self._metrics = [METRICS[name] for name in spec.objectives]
        self._timed = any(metric.of_machine for metric in self._metrics)
        self._fronts: Fronts = {}

    def read(self, connection: Connection, key: int, trials: Mapping[int, Trial]) -> None:
        """Afresh; `trials` are all of the search by number."""
        f = front.c
        rows = connection.execute(select(f.machine, f.number).where(f.search_key == key)).all()
        self._fronts = {}
        for row in rows:
            self._fronts.setdefault(row.machine, []).append(trials[row.number])

    def tell(self, connection: Connection, key: int, trial: Trial) -> dict[str, Any]:
        """A trial that has succeeded. If it joins the front, what its event says of that: whom it
        pushes off."""
        machine = machine_of(trial) if self._timed else ""
        members = self._fronts.setdefault(machine, [])
        before = {member.number for member in members}
        if not joins(trial, members, self._metrics):
            return {}
        left = sorted(before - {member.number for member in members})
        f = front.c
        if left:
            of_front = (f.search_key == key) & (f.machine == machine)
            connection.execute(delete(front).where(of_front, f.number.in_(left)))
        row = {"search_key": key, "machine": machine, "number": trial.number}
        connection.execute(insert(front).values(**row))
        return {"front": {"left": left}}
