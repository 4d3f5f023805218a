"""What SQLite reads to answer: SQLite counts nothing by itself, so the statements must be such that
it takes the right index all the same."""

import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import Engine, event

from formwright.search import SearchSpec
from formwright.search.testing import a_trial
from formwright.service.store.measured import Place

TRIALS = 20
ASKED = {
    "one trial": lambda store, id: store.get_trial(id, 7),
    "a page": lambda store, id: store.list_trials(id, 5),
    "some": lambda store, id: store.trials_at([Place(id, 1, n, "", "", "") for n in range(9)]),
}


@pytest.mark.parametrize("ask", ASKED)
def test_the_metrics_of_some_trials_only_are_read(file_store, path, ask):
    id = file_store.create_search(SearchSpec(), "").id
    log = file_store.log(file_store.claim("me", 600))
    log.append(*(a_trial(number) for number in range(TRIALS)))
    asked = []

    def seen(connection, cursor, statement, parameters, context, many):
        asked.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", seen)
    try:
        ASKED[ask](file_store, id)
    finally:
        event.remove(Engine, "before_cursor_execute", seen)
    with closing(sqlite3.connect(path)) as raw:
        steps = [
            step[3]
            for statement, parameters in asked
            if "FROM formwright_metrics" in statement
            for step in raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    index = "ix_formwright_metrics_search_key_number (search_key=? AND number=?)"
    assert [index in step for step in steps] == [True]
