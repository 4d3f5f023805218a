"""Backups: taken while others write, of one kind of database into the other, never half a one."""

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from formwright.search import Fenced, SearchSpec, TrialState
from formwright.search.testing import a_trial
from formwright.service import backup, restore
from formwright.service.cli.backup import backup as backup_command
from formwright.service.cli.backup import restore as restore_command
from formwright.service.errors import InvalidRequest, NotAllowed, NotFound, SetupError
from formwright.service.records import ArtifactState, SearchState
from formwright.service.scheduler import Scheduler
from formwright.service.store import open_store
from formwright.service.store.engine import Database, read_url
from formwright.service.store.soundness import check as check_file
from formwright.service.store.soundness import file_database

from . import consistent
from .test_upgrades import at, fill
from .writers import run_one, write

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


def filled(url, folder, turns=3):
    """Searches that have ended, two of them with an artefact."""
    store = open_store(str(url))
    for turn in range(turns):
        run_one(store, "me", folder, turn)
    store.close()
    return str(url)


@pytest.fixture
def source(tmp_path):
    """A database with something in it."""
    (tmp_path / "made").mkdir()
    return filled(tmp_path / "source.db", tmp_path / "made")


def sql(path, *statements):
    raw = sqlite3.connect(path)
    for statement in statements:
        rows = raw.execute(statement).fetchall()
    raw.commit()
    raw.close()
    return rows


def test_while_others_write(url, new, tmp_path):
    """Threads and a process do; what comes back is one moment, in both kinds of database."""
    open_store(url).close()
    over, turns = threading.Event(), threading.Semaphore(0)
    threads = [
        threading.Thread(target=write, args=(url, name, over.is_set, turns.release))
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
                assert turns.acquire(timeout=LIMIT_S)
                made.append(backup(url, tmp_path / f"backup{number}"))
            while turns.acquire(blocking=False):
                continue
            assert turns.acquire(timeout=LIMIT_S)  # they did not stop
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
    before = store.list_searches(10).items
    made, target = backup(url, tmp_path / "backup"), new(kind)
    assert (made.rows["searches"], made.rows["files"], made.damaged) == (2, 4, ())
    restore(tmp_path / "backup", target)

    with_all = open_store(target)
    assert with_all.list_searches(10).items == before
    for search in before:
        assert with_all.list_trials(search.id, 99) == store.list_trials(search.id, 99)
        assert with_all.events(search.id, 0, 99) == store.events(search.id, 0, 99)
    store.close()
    assert with_all.create_search(SearchSpec(), "").id not in {s.id for s in before}
    with_all.close()
    assert consistent.check(target) == (3, 4)
    assert backup(target, tmp_path / "again").rows["searches"] == 3


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
    ended = store.list_trials(id, 1000, states=[TrialState.SUCCEEDED]).items
    store.update_search(id, {"trials": len(store.list_trials(id, 1000).items) + 3})
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


def test_one_that_is_killed_leaves_nothing_there(source, tmp_path):
    """What it was writing is taken over by the next one."""
    to = tmp_path / "to" / "backup.db"
    to.parent.mkdir()
    code = """
import sys
from formwright.service import backup

def told(what, done, total):
    if what == "events" and done:
        print("half", flush=True)
        sys.stdin.read()

backup(sys.argv[1], sys.argv[2], told)
"""
    command = [sys.executable, "-c", code, source, str(to)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "half\n"
        with pytest.raises(InvalidRequest, match="another backup is being written"):
            backup(source, to)
        process.kill()
    assert not to.exists()
    assert ".backup.db.part" in os.listdir(to.parent)

    backup(source, to)
    assert os.listdir(to.parent) == ["backup.db"]
    assert check_file(file_database(to), lambda *_: None) == ()
    assert to.stat().st_mode & 0o777 == 0o600


def test_a_disk_that_is_full(source, tmp_path):
    to = tmp_path / "to"
    to.mkdir()
    code = """
import resource, sys
from formwright.__main__ import main

resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
sys.exit(main(["backup", sys.argv[2], "--database", sys.argv[1]]))
"""
    command = [sys.executable, "-c", code, source, str(to / "backup.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("formwright backup: no backup was made: the database ")
    assert f"MiB are free in {to}\n" in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(to) == []


def test_what_is_no_place_for_one(source, tmp_path):
    with pytest.raises(InvalidRequest, match="is there already"):
        backup(source, source)
    with pytest.raises(InvalidRequest, match="there is no folder"):
        backup(source, tmp_path / "none" / "backup")
    with pytest.raises(NotFound, match="there are no searches in"):
        backup(str(tmp_path / "none.db"), tmp_path / "backup")
    sql(tmp_path / "others.db", "CREATE TABLE mine (x)")
    with pytest.raises(NotFound, match="there are no searches in"):
        backup(str(tmp_path / "others.db"), tmp_path / "backup")
    assert not (tmp_path / "none.db").exists()
    made = backup(source, tmp_path)  # a folder: one that is named by the time
    assert Path(made.file).name.startswith("formwright-2")
    sql(source, "UPDATE formwright_alembic_version SET version_num = '9999'")
    with pytest.raises(SetupError, match="9999, newer"):
        backup(source, tmp_path / "backup")


def test_a_database_that_is_not_empty_is_left_as_it_is(url, source, tmp_path):
    backup(source, tmp_path / "backup")
    store = open_store(url)
    search = store.create_search(SearchSpec(), "")
    with pytest.raises(NotAllowed, match="not empty, it has 1 searches, 1 events; name a new"):
        restore(tmp_path / "backup", url)
    assert store.list_searches(10).items == (search,)
    store.close()
    with pytest.raises(NotAllowed, match="not empty"):
        restore(source, source)


def test_what_is_no_backup(source, tmp_path):
    made, target = Path(backup(source, tmp_path / "backup").file), tmp_path / "target.db"
    whole = made.read_bytes()

    def refused(content, match):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(InvalidRequest, match=match):
            restore(tmp_path / "bad", str(target))

    refused(b"", "has none of our tables")
    refused(os.urandom(50_000), "no backup that can be read")
    refused(whole[:20_000], "no backup that can be read")
    refused(whole[: len(whole) * 2 // 3], "no backup that can be read|is damaged")
    refused(whole[: len(whole) // 2] + bytes(4096) + whole[len(whole) // 2 + 4096 :], "is damaged")
    with pytest.raises(NotFound, match="there is no file"):
        restore(tmp_path / "none", str(target))
    sql(made, "UPDATE formwright_alembic_version SET version_num = '9999'")
    with pytest.raises(InvalidRequest, match="revision 9999, newer than this formwright"):
        restore(made, str(target))
    assert not target.exists()


def test_a_failure_in_the_middle_leaves_nothing(source, new, tmp_path):
    made, target = backup(source, tmp_path / "backup"), new("postgresql")
    # a character that SQLite keeps and PostgreSQL does not
    sql(made.file, "UPDATE formwright_searches SET display_name = 'a' || char(0)")
    with pytest.raises(InvalidRequest, match="a value that the database does not take"):
        restore(made.file, target)
    sql(made.file, "UPDATE formwright_searches SET display_name = ''")
    restore(made.file, target)
    assert consistent.check(target) == (2, 4)


def test_content_that_is_damaged_is_named(source, tmp_path, capsys):
    big = "WHERE sha256 IN (SELECT sha256 FROM formwright_files WHERE size = 300000)"
    sql(source, f"UPDATE formwright_pieces SET data = zeroblob(7) {big} AND at > 0")
    arguments = [str(tmp_path / "backup"), "--database"]
    assert backup_command([*arguments, source]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"backup: {tmp_path / 'backup'}, 2 searches, 12 trials, 2 artefacts")
    assert [line.split()[:2] for line in said[1:]] == [["damaged:", "model.safetensors"]] * 2
    assert restore_command([*arguments, str(tmp_path / "target.db")]) == 1
    assert capsys.readouterr().out.startswith("restored: ")
