"""What another hand or another version wrote into the database spoils itself and nothing else."""

import sqlite3

import pytest

from formwright.search import SearchSpec
from formwright.search.testing import a_measurement, a_trial
from formwright.service import SearchState
from formwright.service.errors import InternalError


def write(path, statement):
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("spec", ["garbage", '{"objectives": ["gone"]}', "[]", '{"trials": 0}'])
def test_a_search_that_cannot_be_read_fails_and_lets_others_pass(store, path, spec):
    bad, good = store.create_search(SearchSpec(), ""), store.create_search(SearchSpec(), "")
    write(path, f"update formwright_searches set spec = '{spec}' where id = '{bad.id}'")

    assert [search.id for search in store.list_searches(10).items] == [good.id]
    with pytest.raises(InternalError, match=f"the record of search {bad.id} cannot be read"):
        store.get_search(bad.id)
    assert store.claim("me", 60) is None
    assert store.claim("me", 60).search.id == good.id
    last = store.events(bad.id, 0, 10)[-1]
    assert last.state is SearchState.FAILED
    assert "cannot be read" in last.error


def test_a_trial_that_cannot_be_read_is_left_out_of_the_best(store, path):
    store.create_search(SearchSpec(), "")
    claim = store.claim("me", 60)
    log = store.log(claim)
    for number in range(2):
        for trial in (a_trial(number), a_trial(number).started()):
            log.append(trial)
        log.append(a_trial(number).started().succeeded(a_measurement()))
    log.append(a_trial(2))
    write(path, "update formwright_trials set details = 'garbage' where number in (0, 2)")

    assert [trial.number for trial in store.succeeded()] == [1]
    with pytest.raises(InternalError, match="cannot be read"):
        log.history()
    store.finish(claim, SearchState.FAILED, "no")
    assert store.events(claim.search.id, 0, 100)[-1].state is SearchState.FAILED


def test_an_event_that_cannot_be_read_is_no_gap(store, path):
    search = store.create_search(SearchSpec(), "")
    write(path, "update formwright_events set payload = '{}'")
    with pytest.raises(InternalError, match=f"the record of event {search.id}/1 cannot be read"):
        store.events(search.id, 0, 10)
