"""`Ended`: records of trials that have ended, kept in memory between two questions: they never
change. The others are read. It must not know who asks. Next: `queries.py`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection

from ..records import TrialRecord
from .queries import records_at

MOST = 4096  # records, of some kilobytes each


class At(NamedTuple):
    """Where a trial is. The id of a search is never given again; its key may be."""

    search_id: str
    search_key: int
    number: int


class Ended:
    """Of one store. Threads share it."""

    def __init__(self, most: int = MOST) -> None:
        self._kept: OrderedDict[tuple[str, int], TrialRecord] = OrderedDict()
        self._lock = threading.Lock()
        self._most = most

    def records(self, connection: Connection, places: Iterable[At]) -> list[TrialRecord]:
        """In that order; who is not there, or cannot be read, is left out. `places` are of this
        transaction, or were of an earlier one."""
        places = list(places)
        with self._lock:
            found = {at: self._kept.get((at.search_id, at.number)) for at in places}
        missing = [(at.search_key, at.number) for at, record in found.items() if record is None]
        read = records_at(connection, missing) if missing else {}
        records = [found[at] or read.get((at.search_key, at.number)) for at in places]
        there = [
            record
            for at, record in zip(places, records, strict=True)
            if record is not None and record.search_id == at.search_id
        ]
        self._keep(record for record in there if record.state.final)
        return there

    def _keep(self, records: Iterable[TrialRecord]) -> None:
        with self._lock:
            for record in records:
                place = record.search_id, record.number
                self._kept[place] = record
                self._kept.move_to_end(place)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
