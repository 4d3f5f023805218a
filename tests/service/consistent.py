"""What must hold in a database whatever has happened to it."""

import hashlib
import sqlite3
from collections import Counter

from sqlalchemy import select

from formwright.search import METRICS
from formwright.service.records import ArtifactState
from formwright.service.store import open_store
from formwright.service.store.measured import Scope, undominated
from formwright.service.store.schema import artifacts, files, pieces, searches
from formwright.service.testing_history import all_searches, read


def check(url):
    """How many searches and files of artefacts there are, all of them as they must be."""
    store = open_store(url)
    try:
        ids = all_searches(store)
        for id in ids:
            check_search(store, id)
        with store._database.read() as connection:
            kept = select(searches.c.id, artifacts.c.number, artifacts.c.state).join_from(
                artifacts, searches, artifacts.c.search_key == searches.c.key
            )
            places = connection.execute(kept).all()
            held = set(connection.execute(select(files.c.sha256)).scalars())
            there = set(connection.execute(select(pieces.c.sha256)).scalars())
        assert there == held  # none of these files is empty
        count = 0
        for id, number, state in places:
            if state == ArtifactState.READY:
                count += check_files(store, id, number)
    finally:
        store.close()
    if "://" not in url:  # PostgreSQL checks what rows refer to by itself
        raw = sqlite3.connect(url)
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
        raw.close()
    return len(ids), count


def check_search(store, id):
    told = read(store, id)
    last = told.search.last_sequence
    assert [event.sequence for event in told.events] == list(range(1, last + 1))
    assert told.search.counts == Counter(trial.state for trial in told.trials)
    assert [trial.number for trial in told.trials] == list(range(len(told.trials)))
    newest = {e.trial.number: e.trial.state for e in told.events if e.trial is not None}
    assert newest == {trial.number: trial.state for trial in told.trials}
    states = [event.state for event in told.events if event.state]
    assert states[-1] is told.search.state
    metrics = [METRICS[name] for name in told.search.spec.objectives]
    table = store.measured(Scope(search=id), metrics)
    anew = sorted(place.number for place in table.rows(undominated(table.costs)))
    assert sorted(place.number for place in store.kept_front(id)[0]) == anew


def check_files(store, id, number):
    record = store.artifacts.get(id, number)
    for file in record.files:
        content = b""
        while piece := store.artifacts.piece(id, number, file.path, len(content))[1]:
            content += piece
        assert len(content) == file.size
        assert hashlib.sha256(content).hexdigest() == file.sha256
    return len(record.files)


def sql(path, *statements):
    raw = sqlite3.connect(path)
    for statement in statements:
        rows = raw.execute(statement).fetchall()
    raw.commit()
    raw.close()
    return rows
