"""What the store keeps of searches and trials, and how it answers questions."""

import re
import sqlite3
import threading
from datetime import UTC, datetime, timedelta

import pytest

from formwright.search import METRICS, Measurement, SearchSpec, TrialState
from formwright.search.testing import DETAILS, a_measurement, a_trial, an_architecture
from formwright.service.errors import (
    AlreadyExists,
    InvalidRequest,
    NotAllowed,
    NotFound,
)
from formwright.service.records import Action, SearchState
from formwright.service.store.measured import Scope

METRIC = [METRICS["quality"]]
SPEC = SearchSpec(trials=7, seed=2**63 - 1, objectives=("latency_ms", "quality"))


def run(store, ends, spec=SPEC):
    """A search that runs, with one trial for each state of `ends`."""
    store.create_search(spec, "")
    claim = store.claim("a", 60)
    log = store.log(claim)
    for number, end in enumerate(ends):
        trial, started = a_trial(number), a_trial(number).started()
        log.append(trial)
        if end is not TrialState.PENDING:
            log.append(started)
        if end is TrialState.SUCCEEDED:
            log.append(started.succeeded(a_measurement(number / 10)))
        if end is TrialState.FAILED:
            log.append(started.failed("it diverged"))
    return claim


# searches


def test_a_new_search_is_queued(store):
    before = datetime.now(UTC)
    made = store.create_search(SPEC, "r1", "my search")

    assert (made.spec, made.state, made.display_name) == (SPEC, SearchState.QUEUED, "my search")
    assert (made.error, made.counts, made.last_sequence) == ("", {}, 1)
    assert before <= made.created == made.updated <= datetime.now(UTC)
    assert made.created.utcoffset() == timedelta(0)
    assert re.fullmatch("[0-9a-f]{32}", made.id)
    assert store.get_search(made.id) == made
    (event,) = store.events(made.id, 0, 10)
    assert (event.sequence, event.state, event.trial) == (1, SearchState.QUEUED, None)
    assert event.time == made.created


def test_a_request_makes_one_search(store):
    made = store.create_search(SPEC, "r1", "x")

    assert store.create_search(SPEC, "r1", "x") == made
    cancelled = store.act(made.id, Action.CANCEL)
    assert store.create_search(SPEC, "r1", "x") == cancelled
    for spec, name in ((SPEC, "y"), (SearchSpec(), "x")):
        with pytest.raises(AlreadyExists, match="'r1' has made another search"):
            store.create_search(spec, "r1", name)
    assert store.create_search(SPEC, "r2", "x").id != made.id
    assert len(store.list_searches(10).items) == 2


def test_without_a_request_id_each_makes_another(store):
    assert store.create_search(SPEC, "").id != store.create_search(SPEC, "").id


def test_a_request_makes_one_search_even_at_once(store):
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(store.create_search(SPEC, "r").id))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 8
    assert len(set(made)) == 1


def test_pages_of_searches_do_not_shift(store):
    ids = [store.create_search(SPEC, "").id for _ in range(5)]
    first = store.list_searches(2)
    newer = store.create_search(SPEC, "").id
    second = store.list_searches(2, first.next)
    third = store.list_searches(2, second.next)

    got = [search.id for page in (first, second, third) for search in page.items]
    assert got == ids[::-1]
    assert third.next == ""
    assert store.list_searches(100).items[0].id == newer
    assert store.list_searches(6).next == ""


def test_pages_of_trials(store):
    search = run(store, [TrialState.SUCCEEDED, TrialState.RUNNING] * 3).search.id
    page = store.list_trials(search, 2, states=[TrialState.RUNNING])
    rest = store.list_trials(search, 2, page.next, [TrialState.RUNNING])

    assert [trial.number for trial in (*page.items, *rest.items)] == [1, 3, 5]
    assert rest.next == ""
    everything = store.list_trials(search, 6)
    assert [trial.number for trial in everything.items] == list(range(6))
    assert everything.next == ""
    with pytest.raises(InvalidRequest, match="not a page token of this list"):
        store.list_trials(search, 2, page.next)


@pytest.mark.parametrize("token", ["x", "1", "1.x", "-1.000000000000", "9" * 30 + ".0", "٣.0"])
def test_a_malformed_token(store, token):
    search = store.create_search(SPEC, "").id
    for ask in (store.list_searches, lambda *a: store.list_trials(search, *a)):
        with pytest.raises(InvalidRequest) as caught:
            ask(10, token)
        assert caught.value.field == "page_token"
        with pytest.raises(InvalidRequest) as caught:
            ask(0, "")
        assert caught.value.field == "page_size"


def test_what_is_not_there(store):
    search = store.create_search(SPEC, "").id
    for ask in (
        lambda: store.get_search("0" * 32),
        lambda: store.act("0" * 32, Action.CANCEL),
        lambda: store.events("0" * 32, 0, 1),
        lambda: store.list_trials("0" * 32, 1),
        lambda: store.get_trial("0" * 32, 0),
        lambda: store.get_trial(search, 0),
        lambda: store.measured(Scope("0" * 32), METRIC),
        lambda: store.get_architecture("a1:0"),
    ):
        with pytest.raises(NotFound, match=r"^(there is no|the search .* has no) "):
            ask()


# trials and events


def test_a_trial_as_it_is_kept(store):
    search = run(store, [TrialState.SUCCEEDED, TrialState.FAILED]).search.id
    done, failed = store.get_trial(search, 0), store.get_trial(search, 1)

    assert (done.search_id, done.number, done.attempt) == (search, 0, 1)
    assert done.architecture == an_architecture(0)
    assert done.fingerprint == an_architecture(0).fingerprint()
    assert (done.values, done.details) == (a_measurement(0).values, DETAILS)
    assert done.machine == "m1:ab"
    assert done.created < done.updated
    assert (failed.state, failed.error) == (TrialState.FAILED, "it diverged")
    assert (failed.values, failed.details) == ({}, {})
    known = (an_architecture(0), [(search, 0)])
    assert store.get_architecture(done.fingerprint) == known
    assert store.list_trials(search, 10).items == (done, failed)


def test_the_counts_are_those_of_the_trials(store):
    ends = [TrialState.PENDING, TrialState.RUNNING, TrialState.RUNNING, TrialState.SUCCEEDED]
    one = run(store, ends).search.id
    two = store.create_search(SPEC, "").id

    counts = {TrialState.PENDING: 1, TrialState.RUNNING: 2, TrialState.SUCCEEDED: 1}
    assert store.get_search(one).counts == counts
    assert [search.counts for search in store.list_searches(2).items] == [{}, counts]
    assert store.get_search(two).counts == {}


def test_an_event_is_the_trial_as_it_was(store):
    claim = run(store, [TrialState.RUNNING])
    search, log, first = claim.search.id, store.log(claim), a_trial().started()
    second = first.again("the worker was lost").started()
    log.append(first.again("the worker was lost"))
    log.append(second)
    log.append(second.succeeded(a_measurement(0.5)))
    store.finish(claim, SearchState.SUCCEEDED)
    events = store.events(search, 0, 100)

    assert [event.sequence for event in events] == list(range(1, 9))
    assert [event.state for event in events if event.trial is None] == [
        SearchState.QUEUED,
        SearchState.RUNNING,
        SearchState.SUCCEEDED,
    ]
    trials = [event.trial for event in events if event.trial is not None]
    assert [(trial.state.value, trial.attempt) for trial in trials] == [
        ("PENDING", 1),
        ("RUNNING", 1),
        ("PENDING", 2),
        ("RUNNING", 2),
        ("SUCCEEDED", 2),
    ]
    assert [trial.values for trial in trials] == [{}] * 4 + [a_measurement(0.5).values]
    assert trials[2].error == "the worker was lost"
    assert {trial.architecture for trial in trials} == {an_architecture()}
    assert {trial.created for trial in trials} == {events[2].time}
    assert [trial.updated for trial in trials] == [event.time for event in events[2:7]]
    assert store.events(search, 3, 2) == events[3:5]
    assert store.events(search, 8, 10) == store.events(search, 0, 0) == []
    assert store.get_search(search).last_sequence == 8


def test_what_succeeded_across_searches(store):
    ends = [TrialState.SUCCEEDED, TrialState.FAILED, TrialState.SUCCEEDED, TrialState.RUNNING]
    one = run(store, ends).search.id
    two = run(store, ends, SearchSpec(space="other", task="stars")).search.id

    def found(*bounds, **scope):
        table = store.measured(Scope(**scope), METRIC, bounds)
        read = store.trials_at(table.places)
        assert [trial.values["quality"] for trial in read] == table.values[:, 0].tolist()
        return [(trial.search_id, trial.number) for trial in read]

    assert found() == [(one, 0), (one, 2), (two, 0), (two, 2)]
    assert found(search=two) == found(space="other") == found(task="stars") == [(two, 0), (two, 2)]
    assert found(search=one, space="other") == found(task="none") == found(machine="m1:xy") == []
    assert found(("quality", 0.1, None)) == [(one, 2), (two, 2)]
    assert found(("quality", None, 0.0), search=one, machine="m1:ab") == [(one, 0)]
    assert found(("params", 0.0, 0.0)) == []


def test_values_are_numbers_in_their_own_table(file_store, path):
    claim = run(file_store, [TrialState.RUNNING])
    file_store.log(claim).append(a_trial().started().succeeded(Measurement({"params": 2**50})))
    raw = sqlite3.connect(path)
    rows = raw.execute("SELECT metric, value, typeof(value) FROM formwright_metrics").fetchall()
    raw.close()

    assert rows == [("params", float(2**50), "real")]


def test_the_best_of_a_metric_is_the_end_of_an_index(file_store, path):
    run(file_store, [TrialState.SUCCEEDED] * 3)
    raw = sqlite3.connect(path)
    plan = raw.execute(
        "EXPLAIN QUERY PLAN SELECT number FROM formwright_metrics WHERE search_key = 1"
        " AND metric = 'quality' ORDER BY value DESC LIMIT 1"
    ).fetchall()
    raw.close()

    assert "ix_formwright_metrics_search_key_metric_value" in plan[0][3]
    assert not any("TEMP B-TREE" in row[3] for row in plan)


# cancelling


def test_cancelling_prunes_what_is_open(store):
    ends = [TrialState.SUCCEEDED, TrialState.PENDING, TrialState.RUNNING, TrialState.FAILED]
    search = run(store, ends).search.id
    last = store.get_search(search).last_sequence
    cancelled = store.act(search, Action.CANCEL)
    events = store.events(search, last, 10)

    assert cancelled.state is SearchState.CANCELLED
    assert cancelled.counts == {
        TrialState.SUCCEEDED: 1,
        TrialState.PRUNED: 2,
        TrialState.FAILED: 1,
    }
    assert [event.trial.number for event in events[:2]] == [1, 2]
    assert {event.trial.state for event in events[:2]} == {TrialState.PRUNED}
    assert {event.trial.error for event in events[:2]} == {"the search was cancelled"}
    assert [event.state for event in events[2:]] == [SearchState.CANCELLED]
    assert [event.sequence for event in events] == [last + 1, last + 2, last + 3]
    assert store.act(search, Action.CANCEL) == cancelled


def test_a_queued_search_can_be_cancelled_and_is_not_claimed(store):
    search = store.create_search(SPEC, "").id

    assert store.act(search, Action.CANCEL).state is SearchState.CANCELLED
    assert store.claim("a", 60) is None


@pytest.mark.parametrize("end", [SearchState.SUCCEEDED, SearchState.FAILED])
def test_what_has_ended_cannot_be_cancelled(store, end):
    claim = run(store, [])
    store.finish(claim, end)
    with pytest.raises(NotAllowed, match=f"is {end} and cannot be cancelled"):
        store.act(claim.search.id, Action.CANCEL)
