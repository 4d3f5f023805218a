"""What a user reads where the database cannot be opened, is locked, full or closed."""

import sqlite3
import subprocess
import sys
import threading
import time

import psycopg
import pytest
from sqlalchemy import text

from formwright.search import SearchSpec
from formwright.service import Client
from formwright.service.errors import InternalError, SetupError, Unavailable
from formwright.service.store import open_store

from .servers import serving

SPEC = SearchSpec()


def test_a_locked_database_is_an_internal_error(path):
    store, raw = open_store(str(path), busy_s=0.2), sqlite3.connect(path)
    raw.execute("BEGIN IMMEDIATE")
    with pytest.raises(InternalError, match=r"store.db failed: database is locked") as caught:
        store.create_search(SPEC, "")

    assert caught.value.__cause__ is not None
    assert store.list_searches(10).items == ()  # readers do not wait
    raw.rollback()
    raw.close()
    store.create_search(SPEC, "")
    store.close()


FILLS_THE_DISK = """
import resource, sys
from formwright.search import SearchSpec
from formwright.service.errors import InternalError
from formwright.service.store import open_store

store = open_store(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
made = 0
try:
    while True:
        store.create_search(SearchSpec(), "", "x" * 5000)
        made += 1
except InternalError as error:
    print(made, type(error.__cause__).__name__)
"""


def test_a_full_disk_is_an_internal_error_and_loses_nothing(path):
    command = [sys.executable, "-c", FILLS_THE_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    made, cause = done.stdout.split()
    store = open_store(str(path))

    assert int(made) > 5
    assert cause in ("OperationalError", "DatabaseError")
    assert len(store.list_searches(1000).items) == int(made)
    store.close()


def test_a_closed_store_says_so(path):
    store = open_store(str(path))
    store.close()
    with pytest.raises(InternalError, match="is closed"):
        store.list_searches(1)


def test_setup_errors_are_one_line(tmp_path):
    (tmp_path / "text").write_text("this is not a database, however long one looks at it" * 100)
    for given, says in (
        ("mysql://host/name", "kind 'mysql' are not supported"),
        ("what://host/name", "kind 'what' are not supported"),
        ("://", "not the URL of a database"),
        ("sqlite://", "is not a file"),
        (":memory:", "is not a file"),
        (str(tmp_path), "is a folder"),
        (str(tmp_path / "no" / "store.db"), "there is no folder"),
        (str(tmp_path / "text"), "file is not a database"),
        ("postgresql+what://host/name", "cannot use postgresql"),
    ):
        with pytest.raises(SetupError, match=says) as caught:
            open_store(given)
        assert "\n" not in str(caught.value)


def test_the_ways_to_name_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in ("a.db", "sqlite:///a.db", str(tmp_path / "a.db"), f"sqlite:///{tmp_path}/a.db"):
        store = open_store(given)
        store.create_search(SPEC, "the same")
        store.close()

    assert [file.name for file in tmp_path.iterdir()] == ["a.db"]


def test_a_database_that_is_away_may_come_back(store, url):
    """A table is away, as a database that restarts is: whoever calls or watches waits for it."""

    def rename(before, after):
        with store._database.write() as connection:
            connection.execute(
                text(f"ALTER TABLE formwright_{before} RENAME TO formwright_{after}")
            )

    def come_back(client):
        rename("away", "searches")
        time.sleep(0.5)
        client.cancel(search.id)

    search = store.create_search(SPEC, "")
    with serving(url) as address, Client(address) as client:
        events = client.watch(search.id)
        assert next(events).sequence == 1
        rename("searches", "away")
        with pytest.raises(Unavailable, match="failed"):
            client.get(search.id)
        back = threading.Timer(0.5, come_back, [client])
        back.start()
        later = client.watch(search.id, 1)  # goes on once it is back
        assert [event.sequence for event in later] == [2]
        assert [event.sequence for event in events] == [2]
        back.join()
        assert client.get(search.id).state == "CANCELLED"


def test_a_database_without_an_encoding_keeps_texts_all_the_same(postgresql):
    url = postgresql()
    with psycopg.connect(url, autocommit=True) as connection:
        made = "CREATE DATABASE no_encoding ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
        connection.execute(f"{made} TEMPLATE template0")
    store = open_store(url.replace(url.split("/")[3].split("?")[0], "no_encoding"))
    id = store.create_search(SPEC, "", "ünïcode").id

    assert store.get_search(id).display_name == "ünïcode"
    store.close()
