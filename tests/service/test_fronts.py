"""The best of a search: the front that is kept, against what is computed anew; and by weights."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formwright.search import METRICS, Measurement, SearchSpec, pareto
from formwright.search.testing import a_trial
from formwright.service import Client
from formwright.service.errors import InvalidRequest, NotAllowed
from formwright.service.records import SearchState
from formwright.service.store import open_store
from formwright.service.store.measured import Scope, by_weights, undominated

from .servers import serving

NAMES = ("quality", "latency_ms", "params")
BEST = [METRICS[name] for name in NAMES]


def fill(store, objectives, machines, count=60):
    """A search of so many trials that have succeeded, with coarse values, some of them alike."""
    rng = random.Random(1)
    search = store.create_search(SearchSpec(objectives=objectives), "")
    claim, moves = store.claim("me", 600), []
    for number in range(count):
        if number == count // 2:  # whoever goes on reads the front from the database
            store.release("me")
            claim = store.claim("me", 600)
            log = store.log(claim)
        elif not number:
            log = store.log(claim)
        started = a_trial(number).started()
        values = {name: float(rng.randint(0, 9)) for name in NAMES}
        details = {"machine": {"fingerprint": rng.choice(machines)}}
        moves += [a_trial(number), started, started.succeeded(Measurement(values, details))]
        if number % 10 == 9 or number == count - 1:
            log.append(*moves)
            moves = []
    store.finish(claim, SearchState.SUCCEEDED)
    return search.id


@pytest.mark.parametrize("objectives", [NAMES, ("params", "quality"), ("quality",)])
def test_the_front_that_is_kept_is_the_front(url, objectives):
    store = open_store(url)
    id = fill(store, objectives, ["m1:aa"])
    metrics = [METRICS[name] for name in objectives]
    trials = store.list_trials(id, 100).items
    wanted = pareto(trials, metrics)
    with serving(url) as address, Client(address) as client:
        found = client.best(id)
        anew = client.best(id, machine="m1:aa")

    values = [tuple(t.values[name] for name in objectives) for t in found]
    assert values == [tuple(t.values[name] for name in objectives) for t in wanted]
    assert {t.number for t in found} == {t.number for t in anew} == {t.number for t in wanted}
    assert store.kept_front(id)[1] == 60
    joined = [e for e in store.events(id, 0, 999) if e.left is not None]
    on = set()
    for event in joined:
        on = (on - set(event.left)) | {event.trial.number}
    assert on == {t.number for t in wanted}
    store.close()


def test_latencies_of_two_machines_do_not_compare(url):
    store = open_store(url)
    timed = fill(store, ("quality", "latency_ms"), ["m1:aa", "m1:bb"])
    untimed = fill(store, ("quality", "params"), ["m1:aa", "m1:bb"])
    with serving(url) as address, Client(address) as client:
        with pytest.raises(NotAllowed, match="one of m1:aa, m1:bb"):
            client.best(timed)
        for machine in ("m1:aa", "m1:bb"):
            mine = [t for t in client.trials(timed) if t.machine == machine]
            wanted = {t.number for t in pareto(mine, BEST[:2])}
            assert {t.number for t in client.best(timed, machine=machine)} == wanted
        every = list(client.trials(untimed))
        metrics = [METRICS["quality"], METRICS["params"]]
        wanted = {t.number for t in pareto(every, metrics)}
        assert {t.number for t in client.best(untimed)} == wanted
        mine = [t for t in every if t.machine == "m1:aa"]
        found = {t.number for t in client.best(untimed, machine="m1:aa")}
        assert found == {t.number for t in pareto(mine, metrics)}
    store.close()


def test_the_best_by_weights(url):
    store = open_store(url)
    id = fill(store, ("quality", "params"), ["m1:aa"])
    with serving(url) as address, Client(address) as client:
        found = client.best(id, weights={"quality": 3.0, "params": 1.0}, limit=7)
        score = [3 * t.values["quality"] / 9 - t.values["params"] / 9 for t in found]
        every = [3 * t.values["quality"] / 9 - t.values["params"] / 9 for t in client.trials(id)]
        assert np.allclose(score, sorted(every)[::-1][:7])
        for wrong in ({"quality": 0.0}, {"quality": -1.0}, {"quality": float("nan")}):
            with pytest.raises(InvalidRequest) as caught:
                client.best(id, weights=wrong)
            assert caught.value.field == "weights"
        with pytest.raises(InvalidRequest):
            client.best(id, objectives=("quality", "params"), weights={"quality": 1.0})
    store.close()


costs = st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=40)


@settings(deadline=None, derandomize=True)
@given(costs)
def test_undominated_by_its_definition(rows):
    table = np.array(rows, dtype=float).reshape(len(rows), 3)
    found = undominated(table)
    naive = [
        at
        for at, mine in enumerate(rows)
        if not any(o != mine and all(x <= y for x, y in zip(o, mine, strict=True)) for o in rows)
    ]
    assert sorted(found) == naive
    assert [rows[at] for at in found] == sorted(rows[at] for at in naive)


def test_weights_of_what_is_all_alike():
    assert by_weights(np.empty((0, 2)), [1.0, 1.0]) == []
    assert by_weights(np.array([[1.0, 2.0], [1.0, 1.0], [1.0, 3.0]]), [5.0, 1.0]) == [1, 0, 2]


def test_scopes(url):
    store = open_store(url)
    one = fill(store, NAMES, ["m1:aa"], count=4)
    fill(store, NAMES, ["m1:bb"], count=4)
    assert len(store.measured(Scope(), BEST).places) == 8
    assert len(store.measured(Scope(search=one), BEST).places) == 4
    assert len(store.measured(Scope(machine="m1:bb"), BEST).places) == 4
    store.close()


def test_the_first_by_weights_are_the_first_of_all():
    costs = np.random.default_rng(5).integers(0, 6, (200, 2)).astype(float)
    every = by_weights(costs, [1.0, 2.0])
    for most in (1, 7, 199, 200, 500):
        some = by_weights(costs, [1.0, 2.0], most)
        assert some == every[: len(some)]
        assert len(some) >= min(most, 200)
