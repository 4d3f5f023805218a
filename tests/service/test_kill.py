"""kill -9 of the server, of the scheduler and of a Ray worker in the middle of a search: it goes
on, nothing that was finished is lost or done twice, and no process stays behind."""

import time
from contextlib import contextmanager

import psutil

from formwright.search import SearchSpec, TrialState
from formwright.service import Client, SearchState
from formwright.service.embedded import address_of, start_server, stop_server

# three are killed, and each may take the same trial with it: a fourth attempt has to be left
SPEC = SearchSpec(trials=5, steps=25, target="eager", batch=64, attempts=4)
LIMIT_S = 120


@contextmanager
def running(database, everyone):
    """A server and its address; in the end all that it started is in `everyone`."""
    process = start_server(database, workers=2)
    try:
        with Client(address_of(process), patience_s=LIMIT_S) as client:
            yield psutil.Process(process.pid), client
            note(process.pid, everyone)
    finally:
        stop_server(process)


def note(pid, everyone):
    if psutil.pid_exists(pid):
        server = psutil.Process(pid)
        everyone.update([server, *server.children(recursive=True)])


def scheduler_of(server):
    """The server's only child, once it has workers."""
    (scheduler,) = server.children()
    return scheduler


def workers_of(server):
    return [p for p in server.children(recursive=True) if "_Worker" in " ".join(p.cmdline())]


def until(client, search, enough):
    """The trials that have ended, once there are `enough`."""
    ends = time.monotonic() + LIMIT_S
    while time.monotonic() < ends:
        done = {t.number: t for t in client.trials(search.id) if t.state.final}
        if len(done) >= enough:
            return done
        time.sleep(0.05)
    raise AssertionError(f"only {len(done)} trials ended")


def gone(processes, limit_s=40):
    _, alive = psutil.wait_procs(list(processes), timeout=limit_s)
    return [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_whoever_is_killed_the_search_goes_on(tmp_path):
    database, everyone, kept = tmp_path / "searches.db", set(), {}

    with running(database, everyone) as (server, client):
        search = client.submit(SPEC)
        kept |= until(client, search, 1)
        workers_of(server)[0].kill()

        kept |= until(client, search, 2)
        note(server.pid, everyone)
        scheduler_of(server).kill()

        kept |= until(client, search, 3)
        note(server.pid, everyone)
        server.kill()
        assert gone(everyone) == []

    with running(database, everyone) as (server, client):
        ended = client.wait(search.id)
        trials = {t.number: t for t in client.trials(search.id)}
        events = list(client.watch(search.id))
        note(server.pid, everyone)
    assert gone(everyone) == []

    assert ended.state is SearchState.SUCCEEDED
    assert ended.counts == {TrialState.SUCCEEDED: SPEC.trials}
    assert {number: trials[number] for number in kept} == kept
    assert max(trial.attempt for trial in trials.values()) > 1
    assert [event.sequence for event in events] == list(range(1, ended.last_sequence + 1))
    for number, trial in trials.items():
        states = [e.trial.state for e in events if e.trial and e.trial.number == number]
        assert states == ["PENDING", "RUNNING"] * trial.attempt + ["SUCCEEDED"]
    assert len({trial.fingerprint for trial in trials.values()}) == SPEC.trials
