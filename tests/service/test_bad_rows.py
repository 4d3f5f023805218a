"""What another hand or another version wrote into the database spoils itself and nothing else."""

import sqlite3

import pytest

from formwright.search import METRICS, SearchSpec
from formwright.search.testing import a_measurement, a_trial
from formwright.service import SearchState
from formwright.service.errors import InternalError
from formwright.service.store.measured import Scope


def write(path, statement):
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("spec", ["garbage", '{"objectives": ["gone"]}', "[]", '{"trials": 0}'])
def test_a_search_that_cannot_be_read_fails_and_lets_others_pass(file_store, path, spec):
    bad, good = (
        file_store.create_search(SearchSpec(), ""),
        file_store.create_search(SearchSpec(), ""),
    )
    write(path, f"update formwright_searches set spec = '{spec}' where id = '{bad.id}'")

    assert [search.id for search in file_store.list_searches(10).items] == [good.id]
    with pytest.raises(InternalError, match=f"the record of search {bad.id} cannot be read"):
        file_store.get_search(bad.id)
    assert file_store.claim("me", 60) is None
    assert file_store.claim("me", 60).search.id == good.id
    last = file_store.events(bad.id, 0, 10)[-1]
    assert last.state is SearchState.FAILED
    assert "cannot be read" in last.error


def test_a_trial_that_cannot_be_read_is_left_out_of_the_best(file_store, path):
    file_store.create_search(SearchSpec(), "")
    claim = file_store.claim("me", 60)
    log = file_store.log(claim)
    for number in range(2):
        for trial in (a_trial(number), a_trial(number).started()):
            log.append(trial)
        log.append(a_trial(number).started().succeeded(a_measurement()))
    log.append(a_trial(2))
    write(path, "update formwright_trials set details = 'garbage' where number in (0, 2)")

    assert [
        trial.number
        for trial in file_store.trials_at(file_store.measured(Scope(), [METRICS["quality"]]).places)
    ] == [1]
    with pytest.raises(InternalError, match="cannot be read"):
        log.history()
    file_store.finish(claim, SearchState.FAILED, "no")
    assert file_store.events(claim.search.id, 0, 100)[-1].state is SearchState.FAILED


def test_an_event_that_cannot_be_read_is_no_gap(file_store, path):
    search = file_store.create_search(SearchSpec(), "")
    write(path, "update formwright_events set payload = '{}'")
    with pytest.raises(InternalError, match=f"the record of event {search.id}/1 cannot be read"):
        file_store.events(search.id, 0, 10)
