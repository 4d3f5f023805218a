"""kill -9 of a Ray worker, of the scheduler, of the server, and of all at once, in the middle of a
search: it goes on, nothing that was finished is lost or done twice, and no process stays behind."""

import time
from contextlib import contextmanager
from dataclasses import replace

import psutil

from formwright.search import SearchSpec, TrialState
from formwright.service import Client, SearchState
from formwright.service.embedded import address_of, start_server, stop_server
from formwright.testing_processes import descendants, left, ray_workers, running

LIMIT_S = 600
GONE_S = 180
# Trials only count, so that what is dear is the processes. There are more than can be tried in the
# time: nobody is killed in the middle of a search that has ended. The budget is set in the end.
SPEC = SearchSpec(trials=5000, objectives=("params", "flops"), sampler="random", attempts=100)


class Served:
    """A server, a client of it, and all processes that were seen below it."""

    def __init__(self, process, client):
        self.server, self.client = psutil.Process(process.pid), client
        self.seen = {self.server}

    def below(self):
        found = descendants(self.server.pid)
        self.seen.update(found)
        return found

    def scheduler(self):
        (found,) = running(self.below(), "formwright.service.scheduler")
        return found

    def trials(self, id):
        return {trial.number: trial for trial in self.client.trials(id)}

    def ended(self, id):
        return {number: trial for number, trial in self.trials(id).items() if trial.state.final}

    def tried(self, id):
        """How often a trial has been begun."""
        return sum(trial.attempt for trial in self.client.trials(id))


@contextmanager
def served(database, workers):
    """Nothing is left of it afterwards, however it ended."""
    process = start_server(database, workers=workers)
    try:
        with Client(address_of(process), patience_s=LIMIT_S) as client:
            server = Served(process, client)
            yield server
            server.below()
    finally:
        stop_server(process)
    assert left(server.seen, GONE_S) == []


def until(found):
    """What is found, once there is something."""
    ends = time.monotonic() + LIMIT_S
    while time.monotonic() < ends:
        if it := found():
            return it
        time.sleep(0.05)
    raise AssertionError("it does not come")


def kill_in_a_trial(at, id):
    """Workers, until one was in the middle of a trial, which is then begun again."""

    def was():
        for worker in ray_workers(at.server.pid)[:1]:
            worker.kill()
            left([worker], GONE_S)
        return any(trial.attempt > 1 for trial in at.trials(id).values())

    until(was)


def test_whoever_is_killed_the_search_goes_on(tmp_path):
    database = tmp_path / "searches.db"

    with served(database, workers=0) as at:
        first = at.client.submit(replace(SPEC, trials=20)).id
        until(lambda: at.tried(first))
        for each in (at.scheduler(), at.server):  # and nobody is left to give it back
            each.kill()

    with served(database, workers=2) as at:
        second = at.client.submit(SPEC, priority=1).id  # while the lease of the other runs out
        until(lambda: at.tried(second))
        kill_in_a_trial(at, second)
        until(lambda: at.ended(second))

        scheduler = at.scheduler()
        its = descendants(scheduler.pid)
        scheduler.kill()
        assert left(its, GONE_S) == []
        kept = at.ended(second)
        before = at.tried(second)
        until(lambda: at.tried(second) > before)

        at.below()
        kept = at.ended(second) | kept
        at.server.kill()
        assert left(at.seen, GONE_S) == []

    with served(database, workers=0) as at:
        until(lambda: len(at.ended(second)) > len(kept))
        at.client.pause(second)  # or it would have more trials before it hears of its end
        at.client.update(second, trials=len(at.trials(second)) + 3)
        at.client.resume(second)
        for id in (second, first):
            check(at, id, at.client.wait(id))
        trials = at.trials(second)

    assert {number: trials[number] for number in kept} == kept


def check(at, id, ended):
    """Nothing is there twice, and every trial has ended once."""
    trials, events = at.trials(id), list(at.client.watch(id))
    assert ended.state is SearchState.SUCCEEDED
    assert ended.counts == {TrialState.SUCCEEDED: ended.spec.trials}
    assert max(trial.attempt for trial in trials.values()) > 1
    assert [event.sequence for event in events] == list(range(1, ended.last_sequence + 1))
    states = {number: [] for number in trials}
    for event in events:
        if event.trial:
            states[event.trial.number].append(event.trial.state)
    for number, trial in trials.items():
        assert states[number] == ["PENDING", "RUNNING"] * trial.attempt + ["SUCCEEDED"]
    assert len({trial.fingerprint for trial in trials.values()}) == ended.spec.trials
