"""The tables: made from nothing, the same as the models, refused where they are newer, and at peace
with other tools in the same file."""

import hashlib
import sqlite3
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata

from formwright.search import SearchSpec
from formwright.service.errors import SetupError
from formwright.service.store import migrate, open_store
from formwright.service.store.engine import Database, read_url
from formwright.service.store.schema import Base

TABLES = {
    "formwright_alembic_version",
    "formwright_architectures",
    "formwright_artifacts",
    "formwright_events",
    "formwright_files",
    "formwright_front",
    "formwright_metrics",
    "formwright_pieces",
    "formwright_requests",
    "formwright_searches",
    "formwright_sessions",
    "formwright_tokens",
    "formwright_trials",
}


def make(path):
    store = open_store(str(path))
    store.create_search(SearchSpec(), "r")
    store.close()


def sql(path, *statements):
    """The rows of the last statement."""
    raw = sqlite3.connect(path)
    for statement in statements:
        rows = raw.execute(statement).fetchall()
    raw.commit()
    raw.close()
    return rows


def tables(path):
    found = sql(path, "SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name for (name,) in found if not name.startswith("sqlite_")}


def differences(path):
    database = Database(read_url(str(path)))
    with database.read() as connection:
        found = compare_metadata(migrate.migration_context(connection), Base.metadata)
    database.close()
    return found


def test_a_new_database_has_the_tables(path):
    make(path)

    assert tables(path) == TABLES
    assert sql(path, "SELECT version_num FROM formwright_alembic_version") == [("0005",)]
    assert sql(path, "PRAGMA journal_mode") == [("wal",)]


def test_an_empty_file_is_a_new_database(path):
    path.touch()
    make(path)

    assert tables(path) == TABLES


def test_the_migrations_make_what_the_models_say(path):
    make(path)

    assert differences(path) == []


def test_a_difference_would_be_seen(path):
    make(path)
    sql(path, "DROP INDEX ix_formwright_trials_search_key_state")
    sql(path, "ALTER TABLE formwright_searches DROP COLUMN task")

    assert sorted(found[0] for found in differences(path)) == ["add_column", "add_index"]


def test_opening_again_changes_nothing(path):
    make(path)
    before = sql(path, "SELECT sql FROM sqlite_master")
    make(path)

    assert sql(path, "SELECT sql FROM sqlite_master") == before
    assert sql(path, "SELECT count(*) FROM formwright_searches") == [(1,)]


def test_a_newer_database_is_refused_and_not_touched(path):
    make(path)
    sql(path, "UPDATE formwright_alembic_version SET version_num = '0999'", "SELECT 1")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(SetupError) as caught:
        open_store(str(path))

    message = str(caught.value)
    assert "0999" in message
    assert "0001" in message
    assert message.endswith("use a newer formwright or another database")
    assert "\n" not in message
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_tables_without_a_revision_are_not_overwritten(path):
    sql(path, "CREATE TABLE formwright_searches (mine TEXT)")
    with pytest.raises(SetupError, match="table formwright_searches already exists"):
        open_store(str(path))

    assert tables(path) == {"formwright_searches"}


@pytest.mark.parametrize("ours_first", [False, True])
def test_another_tool_in_the_same_file_is_not_disturbed(path, ours_first):
    if ours_first:
        make(path)
    sql(
        path,
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)",
        "INSERT INTO alembic_version VALUES ('v3.2.0.a')",
        "CREATE TABLE trials (trial_id INTEGER PRIMARY KEY, number INTEGER)",
        "INSERT INTO trials VALUES (1, 2)",
    )
    make(path)

    assert tables(path) == TABLES | {"alembic_version", "trials"}
    assert sql(path, "SELECT * FROM alembic_version") == [("v3.2.0.a",)]
    assert sql(path, "SELECT * FROM trials") == [(1, 2)]
    assert sql(path, "SELECT count(*) FROM formwright_searches") == [(1,)]
    assert differences(path) == []


OPENS = """
import sys, time
from formwright.search import SearchSpec
from formwright.service.store import open_store

print("ready", flush=True)
sys.stdin.readline()
for at in range(10):
    store = open_store(f"{sys.argv[1]}{at}.db")
    store.create_search(SearchSpec(), "")
    store.close()
"""


def test_processes_may_open_a_new_database_at_once(tmp_path):
    command = [sys.executable, "-c", OPENS, str(tmp_path / "new")]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()

    assert [process.returncode for process in processes] == [0, 0, 0]
    for at in range(10):
        assert tables(tmp_path / f"new{at}.db") == TABLES
        assert sql(tmp_path / f"new{at}.db", "SELECT count(*) FROM formwright_searches") == [(3,)]
