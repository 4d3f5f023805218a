"""The durable log obeys the laws of logs, only takes what the newest claim writes, and keeps what
it has taken through a kill."""

import math
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from formwright.search import Fenced, Measurement, SearchSpec, drive
from formwright.search.run.pool import SerialPool
from formwright.search.testing import LogContract, a_trial
from formwright.service.records import Action, SearchState
from formwright.service.store import open_store


@pytest.fixture
def claim(store):
    store.create_search(SearchSpec(), "")
    return store.claim("a", 60)


def take_over(store, claim):
    store.release(claim.owner)
    return store.claim("b", 60)


class TestStoreLog(LogContract):
    @pytest.fixture(autouse=True)
    def _store(self, store):
        self.store = store
        self.searches = {}

    def make(self):
        self.store.create_search(SearchSpec(), "")
        claim = self.store.claim("a", 60)
        log = self.store.log(claim)
        self.searches[id(log)] = claim.search.id
        return log

    def cancel(self, log):
        self.store.act(self.searches[id(log)], Action.CANCEL)


def test_another_store_on_it_reads_the_same(store, claim, url):
    log = store.log(claim)
    for number in range(3):
        log.append(a_trial(number))
    other = open_store(url)

    assert other.log(claim).history() == log.history()
    other.close()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_changes_nothing(store, claim, value):
    log, started = store.log(claim), a_trial().started()
    log.append(a_trial())
    log.append(started)
    with pytest.raises(ValueError, match=r"latency_ms is .*, not a finite number"):
        log.append(started.succeeded(Measurement({"quality": 1.0, "latency_ms": value})))

    assert log.history() == [started]
    assert store.get_search(claim.search.id).last_sequence == 4


def test_an_older_claim_may_not_append(store, claim):
    old = store.log(claim)
    old.append(a_trial())
    new = store.log(take_over(store, claim))
    sequence = store.get_search(claim.search.id).last_sequence
    with pytest.raises(Fenced, match="claimed 2 times, now by b; not by a in claim 1"):
        old.append(a_trial().started())

    assert not old.wanted()
    assert new.wanted()
    assert new.history() == old.history() == [a_trial()]
    assert store.get_search(claim.search.id).last_sequence == sequence
    new.append(a_trial().started())


def test_a_lease_that_has_ended_fences_even_the_owner_itself(store, claim):
    old = store.log(claim)
    store.release("a")
    assert not old.wanted()
    again = store.claim("a", 60)

    assert again.epoch == 2
    assert not old.wanted()
    with pytest.raises(Fenced):
        old.append(a_trial())
    store.log(again).append(a_trial())


def test_a_finished_search_takes_nothing(store, claim):
    store.finish(claim, SearchState.SUCCEEDED)
    with pytest.raises(Fenced, match="is SUCCEEDED"):
        store.log(claim).append(a_trial())


APPENDS = """
import sys
import time
from dataclasses import replace
from formwright.search.testing import a_trial
from formwright.search import SearchSpec
from formwright.service.store import open_store

store = open_store(sys.argv[1])
store.create_search(SearchSpec(trials=100_000), "")
log = store.log(store.claim("a", 60))
for number in range(100_000):
    log.append(a_trial(number))
    print(number, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path):
    path = str(tmp_path / "store.db")
    command = [sys.executable, "-c", APPENDS, path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    seen = [process.stdout.readline() for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    seen += process.stdout.readlines()
    process.wait()
    process.stdout.close()
    acknowledged = [int(line) for line in seen if line.endswith("\n")]

    store = open_store(path)
    (search,) = store.list_searches(10).items
    events = store.events(search.id, 0, 100_000)
    trials = store.list_trials(search.id, 100_000).items
    store.close()

    assert len(acknowledged) >= 50
    assert len(acknowledged) <= len(trials) <= len(acknowledged) + 1
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert [event.sequence for event in events] == list(range(1, len(trials) + 3))
    assert search.last_sequence == len(events)


def test_what_may_be_spent_is_as_it_is_now(store):
    spec = SearchSpec(trials=3)
    made = store.create_search(spec, "")
    log = store.log(store.claim("me", 60))
    assert log.renewed(spec) == spec
    store.update_search(made.id, {"trials": 5, "flops": 1e9, "priority": 2})
    assert log.renewed(spec) == replace(spec, trials=5, flops=1e9)


@pytest.mark.parametrize(("before", "after", "made"), [(4, 7, {7}), (20, 2, {3, 4, 5})])
def test_a_search_goes_on_with_another_budget(store, before, after, made):
    """It is changed while one of the first trials is evaluated; what was proposed is tried."""
    spec = SearchSpec(trials=before, sampler="random", target="eager")
    search = store.create_search(spec, "")
    log = store.log(store.claim("me", 60))

    def evaluate(evaluation):
        if len(log.history()) == 3:
            store.update_search(search.id, {"trials": after})
            time.sleep(0.3)  # it is looked at now and then
        number = int(evaluation.architecture.fingerprint()[3:11], 16)
        return Measurement({"quality": number % 7 / 7, "latency_ms": number % 5, "params": 1.0})

    drive(spec, SerialPool(evaluate), log)
    assert len(log.history()) in made
