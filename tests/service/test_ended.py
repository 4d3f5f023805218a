"""What has ended is read once; what has not is read each time; and searches that were deleted, and
keys that are given again, are not mistaken for others."""

import pytest

from formwright.search import SearchSpec
from formwright.search.testing import a_measurement, a_trial
from formwright.service.errors import NotFound
from formwright.service.records import SearchState
from formwright.service.store import ended, open_store
from formwright.service.store.ended import At, Ended


def searched(store, quality):
    search = store.create_search(SearchSpec(), "")
    claim = store.claim("me", 60)
    log = store.log(claim)
    log.append(a_trial(0), a_trial(1), first := a_trial(0).started())
    log.append(first.succeeded(a_measurement(quality)), a_trial(1).started())
    return search.id, claim


@pytest.fixture
def reads(monkeypatch):
    """The places that were read from the database."""
    found = []
    read = ended.records_at

    def counted(connection, places):
        found.extend(number for _, number in places)
        return read(connection, places)

    monkeypatch.setattr(ended, "records_at", counted)
    return found


def test_what_has_ended_is_read_once(store, url, reads):
    id, claim = searched(store, 0.5)
    for _ in range(3):
        assert store.get_trial(id, 0).values["quality"] == 0.5
        assert [trial.number for trial in store.list_trials(id, 10).items] == [0, 1]
        assert store.get_trial(id, 1).state == "RUNNING"
    assert reads == [0, *[1] * 6]

    store.log(claim).append(a_trial(1).started().failed("it diverged"))
    assert store.get_trial(id, 1).error == "it diverged"
    assert store.list_trials(id, 10, filter="state = FAILED").items == (store.get_trial(id, 1),)
    assert reads[7:] == [1]
    other = open_store(url)  # another process would read the same
    assert other.list_trials(id, 10).items == store.list_trials(id, 10).items
    other.close()


def test_a_key_that_is_given_again(store, reads):
    id, claim = searched(store, 0.5)
    store.finish(claim, SearchState.SUCCEEDED)
    assert store.get_trial(id, 0).values["quality"] == 0.5
    store.delete_search(id)
    with pytest.raises(NotFound):
        store.get_trial(id, 0)
    new, _ = searched(store, 0.7)  # SQLite gives the key of the newest row again
    assert store.get_trial(new, 0).values["quality"] == 0.7
    with store._database.read() as connection:
        assert Ended().records(connection, [At(id, 1, 0)]) == []  # of the search that is gone


def test_only_so_many_are_kept(store, reads):
    id, _ = searched(store, 0.5)
    kept = Ended(most=0)
    for _ in range(2):
        with store._database.read() as connection:
            (record,) = kept.records(connection, [At(id, 1, 0)])
        assert record == store.get_trial(id, 0)
    assert reads == [0, 0, 0]
