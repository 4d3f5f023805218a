"""What a search of a store has measured answers another of the same recipe on that machine."""

from dataclasses import replace

import pytest

from formwright.search import Measurement, SearchSpec, drive
from formwright.search.run.pool import SerialPool
from formwright.service.records import SearchState

SPEC = SearchSpec(trials=8, sampler="random", target="eager", objectives=("quality", "params"))


class Counting(SerialPool):
    def __init__(self, machine="m1:a"):
        super().__init__(self.measured)
        self.machine, self.count = machine, 0

    def measured(self, evaluation):
        self.count += 1
        number = int(evaluation.architecture.fingerprint()[3:11], 16)
        values = {"quality": number % 97 / 97, "params": number % 83}
        return Measurement(values, {"machine": {"fingerprint": self.machine}})


def run(store, spec, pool):
    store.create_search(spec, "")
    claim = store.claim("a", 60)
    log = store.log(claim)
    drive(spec, pool, log)
    store.finish(claim, SearchState.SUCCEEDED)
    return claim.search.id, log.history()


def test_a_search_is_answered_by_those_before_it(store):
    first, trials = run(store, SPEC, Counting())
    pool = Counting()
    _, again = run(store, replace(SPEC, trials=10), pool)

    assert pool.count == 1 + 2  # until one is measured nobody knows the machine; two are new
    assert [trial.values for trial in again[:8]] == [trial.values for trial in trials]
    answered = [trial.details.get("answered") for trial in again]
    assert answered[1:8] == [f"searches/{first}/trials/{number}" for number in range(1, 8)]
    assert answered[0] is None
    assert answered[8:] == [None, None]


def test_an_answer_says_who_gave_it(store):
    run(store, SPEC, Counting())
    second, _ = run(store, SPEC, Counting())
    _, third = run(store, SPEC, Counting())

    assert third[3].details["answered"] == f"searches/{second}/trials/3"


@pytest.mark.parametrize("change", [{"seed": 1}, {"steps": 7}, {"task": "recall_small"}], ids=str)
def test_another_recipe_is_measured(store, change):
    run(store, SPEC, Counting())
    pool = Counting()
    run(store, replace(SPEC, **change), pool)

    assert pool.count == SPEC.trials


def test_another_machine_is_measured(store):
    run(store, SPEC, Counting())
    pool = Counting("m1:b")
    run(store, SPEC, pool)

    assert pool.count == SPEC.trials


def test_a_trial_that_cannot_be_read_is_no_answer(file_store, tmp_path):
    import sqlite3

    run(file_store, SPEC, Counting())
    raw = sqlite3.connect(tmp_path / "store.db")
    raw.execute("UPDATE formwright_searches SET spec = '{}x'")
    raw.commit()
    raw.close()
    pool = Counting()
    run(file_store, SPEC, pool)

    assert pool.count == SPEC.trials
