"""Backups: taken while others write, of one kind of database into the other, never half a one."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from formwright.search import Fenced, SearchSpec, TrialState
from formwright.search.testing import a_trial
from formwright.service import backup, restore
from formwright.service.access import Scope
from formwright.service.errors import Unauthenticated
from formwright.service.records import ArtifactState, SearchState
from formwright.service.scheduler import Scheduler
from formwright.service.store import open_store
from formwright.service.store.engine import Database, read_url

from . import consistent
from .consistent import sql
from .test_upgrades import at, fill
from .writers import PAUSE_S, filled, write

WRITERS = Path(__file__).with_name("writers.py")
LIMIT_S = 60


@pytest.fixture
def new(request, tmp_path):
    """Makes a database of a kind, `new("sqlite")`."""
    made = []

    def database(kind):
        made.append(kind)
        if kind == "sqlite":
            return str(tmp_path / f"new{len(made)}.db")
        return request.getfixturevalue("postgresql")()

    return database


@pytest.fixture
def source(tmp_path):
    """A database with something in it."""
    (tmp_path / "made").mkdir()
    return filled(tmp_path / "source.db", tmp_path / "made")


def they_went_on(turns):
    """There are other rows than when this was asked: of four turns one deletes nothing."""
    while turns.acquire(blocking=False):
        continue
    for _ in range(4):
        assert turns.acquire(timeout=LIMIT_S)


def test_while_others_write(url, new, tmp_path):
    """Threads and a process do; what comes back is one moment, in both kinds of database."""
    open_store(url).close()
    over, turns = threading.Event(), threading.Semaphore(0)
    threads = [
        threading.Thread(target=write, args=(url, name, lambda: over.wait(PAUSE_S), turns.release))
        for name in ("one", "other")
    ]
    pipe = subprocess.PIPE
    command = [sys.executable, str(WRITERS), url]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        try:
            for thread in threads:
                thread.start()
            made = []
            for number in range(2):
                they_went_on(turns)
                made.append(backup(url, tmp_path / f"backup{number}"))
            they_went_on(turns)
        finally:
            over.set()
            for thread in threads:
                thread.join()
            process.stdin.close()
    assert process.returncode == 0
    assert made[0].rows != made[1].rows

    for number, kind in ((0, "postgresql"), (1, "sqlite")):
        with_all = new(kind)
        assert restore(tmp_path / f"backup{number}", with_all).rows == made[number].rows
        searches, _ = consistent.check(with_all)
        assert searches == made[number].rows["searches"] > 0
    assert made[1].rows["files"] > 0
    consistent.check(url)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_it_is_the_same_afterwards_and_goes_on(url, new, kind, tmp_path):
    (tmp_path / "made").mkdir()
    store = open_store(filled(url, tmp_path / "made"))
    token, _ = store.access.create("ada", Scope.SUBMIT)
    mine = store.seen_by("ada").create_search(SearchSpec(), "")
    session = store.access.open_session(store.access.caller_of(token), 600)
    before = store.list_searches(10).items
    made, target = backup(url, tmp_path / "backup"), new(kind)
    assert (made.rows["searches"], made.rows["files"], made.damaged) == (3, 4, ())
    restore(tmp_path / "backup", target)

    with_all = open_store(target)
    assert with_all.list_searches(10).items == before
    for search in before:
        assert with_all.list_trials(search.id, 99) == store.list_trials(search.id, 99)
        assert with_all.events(search.id, 0, 99) == store.events(search.id, 0, 99)
    store.close()
    assert with_all.access.caller_of(token).owner == "ada"  # who may call then may call now
    assert [search.id for search in with_all.seen_by("ada").list_searches(10).items] == [mine.id]
    with pytest.raises(Unauthenticated):  # but nobody is logged in
        with_all.access.caller_of_session(session)
    for secret in (token[-43:], session):
        assert secret.encode() not in Path(made.file).read_bytes()
    assert with_all.create_search(SearchSpec(), "").id not in {s.id for s in before}
    with_all.close()
    assert consistent.check(target) == (4, 4)
    assert backup(target, tmp_path / "again").rows["searches"] == 4


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_search_that_ran_goes_on(path, new, kind, tmp_path):
    store, target = open_store(str(path)), new(kind)
    counts = ("params", "flops")  # nothing is trained
    spec = SearchSpec(trials=5000, objectives=counts, sampler="random")
    id = store.create_search(spec, "").id
    old = running(store)
    wait_for(lambda: len(store.list_trials(id, 50, states=[TrialState.SUCCEEDED]).items) >= 5)
    backup(str(path), tmp_path / "backup")
    old.stop()
    store.close()

    restore(tmp_path / "backup", target)
    store = open_store(target)
    search = store.get_search(id)
    assert search.state is SearchState.RUNNING
    ended = store.list_trials(id, 10_000, states=[TrialState.SUCCEEDED]).items
    store.update_search(id, {"trials": len(store.list_trials(id, 10_000).items) + 3})
    new_one = running(store)
    wait_for(lambda: store.get_search(id).state.final)
    new_one.stop()
    after = store.get_search(id)
    assert (after.state, after.counts) == (
        SearchState.SUCCEEDED,
        {TrialState.SUCCEEDED: after.spec.trials},
    )
    for trial in ended:
        assert store.get_trial(id, trial.number) == trial
    store.close()
    assert consistent.check(target) == (1, 0)


class running:
    """A scheduler in a thread."""

    def __init__(self, store):
        self.scheduler = Scheduler(store, "scheduler", 0, None)
        self.thread = threading.Thread(target=self.scheduler.serve)
        self.thread.start()

    def stop(self):
        self.scheduler.stopping.set()
        self.thread.join()


def wait_for(true):
    for _ in range(20 * LIMIT_S):
        if true():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it did not come")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_who_held_something_is_fenced(source, new, kind, tmp_path):
    store, target = open_store(source), new(kind)
    ended = store.list_searches(10).items[-1].id
    id = store.create_search(SearchSpec(), "").id
    store.artifacts.create(ended, 1, 2)
    claim, keeps = store.claim("old", 600), store.artifacts.claim("old", 600)
    store.log(claim).append(a_trial(0), a_trial(0).started())
    store.close()
    backup(source, tmp_path / "backup")
    restore(tmp_path / "backup", target)

    store = open_store(target)
    with pytest.raises(Fenced):
        store.log(claim).append(a_trial(1))
    assert not store.renew(claim, 60)
    assert not store.artifacts.renew(keeps, 60)
    assert store.artifacts.get(ended, 1).state is ArtifactState.QUEUED
    claimed = store.claim("old", 600)  # at once, and nobody mistakes it for the other
    assert (claimed.search.id, store.get_search(id).state) == (id, SearchState.RUNNING)
    assert claimed.epoch > claim.epoch + 100
    with pytest.raises(Fenced):
        store.log(claim).append(a_trial(1))
    again = store.artifacts.claim("old", 600)
    assert (again.trial.number, again.seeds) == (1, 2)
    assert not store.artifacts.renew(keeps, 60)
    store.close()


@pytest.mark.parametrize("revision", ["0001", "0004"])
def test_an_earlier_version_is_copied_as_it_is_and_restored_as_ours(url, new, revision, tmp_path):
    database = Database(read_url(url))
    at(database, revision)
    with database.write() as connection:
        fill(connection, revision, database.is_sqlite)
    database.close()
    made, target = backup(url, tmp_path / "backup"), new("sqlite" if "://" in url else "postgresql")
    assert made.revision == revision
    assert sql(made.file, "SELECT * FROM formwright_alembic_version") == [(revision,)]
    open_store(target).close()  # tables that are empty are in nobody's way
    restore(made.file, target)

    store = open_store(target)
    assert store.get_search("abc").counts == {TrialState.SUCCEEDED: 4, TrialState.FAILED: 1}
    assert len(store.events("abc", 0, 99)) == 17
    store.close()
