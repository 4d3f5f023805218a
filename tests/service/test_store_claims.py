"""Who may run a search: claims, leases and fences, also with many threads and processes."""

import random
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from formwright.search import Fenced, SearchSpec, TrialState
from formwright.search.testing import a_measurement, a_trial
from formwright.service.errors import NotAllowed
from formwright.service.records import Action, SearchState
from formwright.service.scheduler import Scheduler

SPEC = SearchSpec()


def in_threads(functions):
    """Runs them at once; what each returned or raised."""
    gate, results = threading.Barrier(len(functions)), [None] * len(functions)

    def run(at, function):
        gate.wait()
        try:
            results[at] = function()
        except Exception as error:
            results[at] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_the_oldest_is_claimed_first(store):
    ids = [store.create_search(SPEC, "").id for _ in range(3)]
    claims = [store.claim("a", 60) for _ in range(4)]

    assert [claim.search.id for claim in claims[:3]] == ids
    assert claims[3] is None
    assert {(claim.owner, claim.epoch, claim.search.state) for claim in claims[:3]} == {
        ("a", 1, SearchState.RUNNING)
    }
    assert claims[0].search == store.get_search(ids[0])
    assert [event.state.value for event in store.events(ids[0], 0, 9)] == ["QUEUED", "RUNNING"]


def test_a_lease_that_has_ended_is_claimed_by_another(store):
    search = store.create_search(SPEC, "").id
    store.create_search(SPEC, "")
    old = store.claim("a", 0.05)
    time.sleep(0.1)
    new = store.claim("b", 60)

    assert (new.search.id, new.owner, new.epoch) == (search, "b", 2)
    assert store.get_search(search).last_sequence == 2  # it was RUNNING and still is
    assert not store.renew(old, 60)
    assert store.renew(new, 60)


def test_a_renewed_lease_goes_on(store):
    store.create_search(SPEC, "")
    claim = store.claim("a", 0.05)
    assert store.renew(claim, 60)
    time.sleep(0.1)

    assert store.claim("b", 60) is None
    assert store.log(claim).wanted()


def test_a_lease_that_nobody_took_can_be_renewed(store):
    store.create_search(SPEC, "")
    claim = store.claim("a", 0.01)
    time.sleep(0.05)

    assert store.renew(claim, 60)
    assert store.claim("b", 60) is None


def test_releasing_hands_back_what_one_owner_runs(store):
    ids = [store.create_search(SPEC, "").id for _ in range(3)]
    mine = [store.claim("a", 60) for _ in range(2)]
    other = store.claim("b", 60)

    assert store.release("a") == 2
    assert store.release("a") == 0
    assert [store.get_search(id).state for id in ids] == [SearchState.RUNNING] * 3
    assert not store.renew(mine[0], 60)
    assert store.renew(other, 60)
    assert [store.claim("c", 60).search.id for _ in range(2)] == ids[:2]


def test_finishing(store):
    search = store.create_search(SPEC, "").id
    claim = store.claim("a", 60)
    store.log(claim).append(a_trial())
    store.finish(claim, SearchState.FAILED, "the space\nis broken")
    record, (*_, pruned, last) = store.get_search(search), store.events(search, 0, 9)

    assert (record.state, record.error) == (SearchState.FAILED, "the space is broken")
    assert record.counts == {TrialState.PRUNED: 1}
    assert (pruned.trial.state, pruned.trial.error) == (TrialState.PRUNED, "the search ended")
    assert (last.state, last.error) == (SearchState.FAILED, "the space is broken")
    assert store.claim("b", 60) is None
    assert not store.renew(claim, 60)
    with pytest.raises(Fenced, match="is FAILED"):
        store.finish(claim, SearchState.SUCCEEDED)


def test_a_search_can_go_back_to_the_queue(store):
    store.create_search(SPEC, "")
    claim = store.claim("a", 60)
    store.log(claim).append(a_trial())
    store.finish(claim, SearchState.QUEUED)
    again = store.claim("b", 60)

    assert again.epoch == 2
    assert store.log(again).history() == [a_trial()]


def test_only_what_can_follow_finishes(store):
    store.create_search(SPEC, "")
    claim = store.claim("a", 60)
    with pytest.raises(Fenced, match="RUNNING; RUNNING cannot follow"):
        store.finish(claim, SearchState.RUNNING)


def test_a_search_with_another_budget_by_now_is_not_finished(store):
    search = store.create_search(SPEC, "")
    claim = store.claim("a", 60)
    store.update_search(search.id, {"trials": 99})
    assert store.finish(claim, SearchState.SUCCEEDED, driven=SPEC) is False
    assert store.get_search(search.id).state is SearchState.RUNNING
    assert store.finish(claim, SearchState.SUCCEEDED, driven=replace(SPEC, trials=99))
    assert store.get_search(search.id).state is SearchState.SUCCEEDED


def test_an_old_claim_does_not_finish(store):
    search = store.create_search(SPEC, "").id
    old = store.claim("a", 60)
    store.release("a")
    store.claim("b", 60)
    with pytest.raises(Fenced, match="not by a in claim 1"):
        store.finish(old, SearchState.SUCCEEDED)

    assert store.get_search(search).state is SearchState.RUNNING


def test_a_search_is_claimed_once(store):
    ids = {store.create_search(SPEC, "").id for _ in range(5)}
    claims = in_threads([lambda at=at: store.claim(f"o{at}", 60) for at in range(8)])

    assert {claim.search.id for claim in claims if claim} == ids
    assert sum(claim is None for claim in claims) == 3


def test_cancelling_races_with_finishing(store):
    for _ in range(10):
        store.create_search(SPEC, "")
        claim = store.claim("a", 60)
        store.log(claim).append(a_trial())
        finish = lambda claim=claim: store.finish(claim, SearchState.SUCCEEDED)  # noqa: E731
        cancel = lambda claim=claim: store.act(claim.search.id, Action.CANCEL)  # noqa: E731
        finished, cancelled = in_threads([finish, cancel])
        state = store.get_search(claim.search.id).state
        ends = [e.state for e in store.events(claim.search.id, 3, 9) if e.state]

        assert ends == [state]
        if state is SearchState.SUCCEEDED:
            assert finished is True
            assert isinstance(cancelled, NotAllowed)
        else:
            assert isinstance(finished, Fenced)
            assert cancelled.state is state is SearchState.CANCELLED


def test_nothing_is_appended_after_a_cancellation(store):
    for _ in range(5):
        store.create_search(SPEC, "")
        claim = store.claim("a", 60)
        log, id = store.log(claim), claim.search.id
        for number in range(4):
            log.append(a_trial(number))
            log.append(a_trial(number).started())
        done = [a_trial(number).started().succeeded(a_measurement()) for number in range(4)]
        append = [lambda log=log, trial=trial: log.append(trial) for trial in done]
        *_, cancelled = in_threads([*append, lambda id=id: store.act(id, Action.CANCEL)])

        assert all(trial.state.final for trial in log.history())
        assert store.get_search(id) == cancelled
        events = store.events(id, 0, 99)
        assert [event.sequence for event in events] == list(range(1, 16))
        assert events[-1].state is SearchState.CANCELLED


def test_events_have_no_gaps_while_threads_append_and_read(store):
    search = store.create_search(SPEC, "").id
    log = store.log(store.claim("a", 60))
    for number in range(24):
        log.append(a_trial(number))
    ended = threading.Event()

    def work(numbers):
        for number in numbers:
            log.append(a_trial(number).started())
            log.append(a_trial(number).started().succeeded(a_measurement(random.random())))

    def watch():
        seen = []
        while not ended.is_set() or store.events(search, len(seen), 1):
            seen += store.events(search, len(seen), 7)
        return seen

    watched = []
    watcher = threading.Thread(target=lambda: watched.extend(watch()))
    watcher.start()
    failures = in_threads([lambda at=at: work(range(at, 24, 4)) for at in range(4)])
    ended.set()
    watcher.join()

    assert failures == [None] * 4
    assert [event.sequence for event in watched] == list(range(1, 2 + 3 * 24 + 1))
    assert watched == store.events(search, 0, 1000)
    assert store.get_search(search).counts == {TrialState.SUCCEEDED: 24}


WORKS = """
import sys
from formwright.search.testing import a_measurement, a_trial
from formwright.service.records import Claim
from formwright.service.store import open_store

path, id, first, step = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
store = open_store(path)
log = store.log(Claim(store.get_search(id), "a", 1))
for number in range(first, 60, step):
    log.append(a_trial(number).started())
    log.append(a_trial(number).started().succeeded(a_measurement()))
"""


def test_events_have_no_gaps_while_processes_append(store, url):
    search = store.create_search(SPEC, "").id
    log = store.log(store.claim("a", 60))
    for number in range(60):
        log.append(a_trial(number))
    processes = [
        subprocess.Popen([sys.executable, "-c", WORKS, url, search, str(at), "3"])
        for at in range(3)
    ]

    assert [process.wait() for process in processes] == [0, 0, 0]
    events = store.events(search, 0, 1000)
    assert [event.sequence for event in events] == list(range(1, 2 + 3 * 60 + 1))
    assert store.get_search(search).counts == {TrialState.SUCCEEDED: 60}
    assert store.get_search(search).last_sequence == len(events)


CLAIMS = """
import sys
from formwright.service.records import Action, SearchState
from formwright.service.store import open_store

store = open_store(sys.argv[1])
while claim := store.claim(sys.argv[2], 60):
    print(claim.search.id, claim.epoch)
    store.finish(claim, SearchState.SUCCEEDED)
"""


def test_processes_share_the_searches(store, url):
    ids = sorted(store.create_search(SPEC, "").id for _ in range(30))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMS, url, str(at)], stdout=subprocess.PIPE, text=True
        )
        for at in range(3)
    ]
    lines = [line for process in processes for line in process.communicate()[0].splitlines()]

    assert sorted(lines) == [f"{id} 1" for id in ids]


def test_a_scheduler_lets_go_though_its_pool_cannot_be_closed(store):
    class Broken:
        def close(self):
            raise BrokenPipeError(32, "nobody reads what Ray prints")

    store.create_search(SearchSpec(), "")
    assert store.claim("me", 60) is not None
    scheduler = Scheduler(store, "me", 0, None)
    scheduler._pool = 1, Broken()
    scheduler.stopping.set()
    scheduler.serve()
    assert store.claim("you", 60) is not None
