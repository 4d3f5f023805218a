"""The numbers that are kept between two questions are those of the database, whatever happened."""

import random

import numpy as np

from formwright.search import METRICS, Measurement, SearchSpec
from formwright.search.testing import a_trial
from formwright.service.records import Action
from formwright.service.store import open_store
from formwright.service.store.kept import Columns
from formwright.service.store.measured import Scope, measured

NAMES = ("quality", "params", "latency_ms")
BEST = [METRICS[name] for name in NAMES]
SPEC = SearchSpec(trials=1000, objectives=NAMES)


def places(table):
    return [(p.search_key, p.number, p.fingerprint, p.machine, p.task) for p in table.places]


def same(one, other):
    assert places(one) == places(other)
    np.testing.assert_array_equal(one.values, other.values)
    assert (one.tasks, one.machines) == (other.tasks, other.machines)


def ended(number, rng):
    started = a_trial(number).started()
    some = rng.sample(NAMES, rng.randint(1, 3)) if number % 5 == 0 else NAMES
    values = {name: float(rng.randint(0, 9)) for name in some}
    details = {"machine": {"fingerprint": rng.choice(["m1:aa", "m1:bb"])}}
    if number % 7 == 0:
        return started, started.failed("it diverged")
    return started, started.succeeded(Measurement(values, details))


def test_they_grow_with_the_search(url):
    rng, store = random.Random(3), open_store(url)
    logs = []
    for at in range(2):
        store.create_search(SPEC, f"{at}")
        logs.append(store.log(store.claim("me", 600)))
    scopes = [Scope(), Scope(machine="m1:aa"), Scope(search=store.list_searches(1).items[0].id)]
    for block in range(0, 40, 4):
        log = logs[block // 4 % 2]
        first = len(log.history())
        log.append(*(a_trial(number) for number in range(first, first + 4)))
        for number in rng.sample(range(first, first + 4), 4):  # in any order
            log.append(*ended(number, rng))
            fresh = open_store(url)
            for scope in scopes:
                metrics, bounds = BEST[: 1 + block % 3], [("params", None, 5.0)] * (block % 2)
                same(store.measured(scope, metrics, bounds), fresh.measured(scope, metrics, bounds))
            fresh.close()

    store.act(scopes[2].search, Action.CANCEL)
    store.delete_search(scopes[2].search)
    same(store.measured(Scope(), BEST), open_store(url).measured(Scope(), BEST))
    store.close()


def test_an_older_transaction_leaves_no_gaps(url):
    rng, store, columns = random.Random(4), open_store(url), Columns()
    store.create_search(SPEC, "")
    log = store.log(store.claim("me", 600))
    log.append(*(a_trial(number) for number in range(4)))
    log.append(*ended(1, rng))
    read = store._database.read
    with read() as older:
        before = measured(older, columns, Scope(), BEST[:1], [])
        log.append(*ended(2, rng))
        with read() as newer:
            after = measured(newer, columns, Scope(), BEST[:1], [])
        again = measured(older, columns, Scope(), BEST, [])
    with read() as newer:
        same(measured(newer, columns, Scope(), BEST, []), store.measured(Scope(), BEST))
    assert [len(table) for table in (before, after, again)] == [1, 2, 1]
    store.close()


def test_no_more_than_so_many_are_kept(file_store):
    columns = Columns(most=3)
    for at in range(3):
        file_store.create_search(SPEC, f"{at}")
        log = file_store.log(file_store.claim("me", 600))
        log.append(a_trial(0), a_trial(1))
        for number in range(2):
            started = a_trial(number).started()
            values = Measurement(dict.fromkeys(NAMES, 1.0))
            log.append(started, started.succeeded(values))
    with file_store._database.read() as connection:
        assert len(measured(connection, columns, Scope(), BEST, [])) == 6
    assert [len(kept.numbers) for kept in columns._kept.values()] == [2]
