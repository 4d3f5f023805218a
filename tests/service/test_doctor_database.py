"""Faults of databases and of what waits in them, each really planted: the doctor finds each and
says what to do."""

import sqlite3
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from formwright.search import SearchSpec
from formwright.service.checks import database
from formwright.service.store import health

from . import planted

world = planted.world
faults = planted.Faults()


def sqlite(world, name="searches.db"):
    """A new database, named."""
    path = world.folder / name
    world.store(path, id)
    world.options["database"] = str(path)
    return path


def run(path, *statements):
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(*statement)
    connection.close()


@faults.row("database", "database", "failed", "is newer than ours", "pip install --upgrade")
def a_newer_database(world):
    path = sqlite(world)
    run(path, ("update formwright_alembic_version set version_num = 'v9999'",))


@faults.row("database", "database", "warning", "is older than ours", "formwright serve")
def an_older_database(world):
    path = sqlite(world)
    run(path, ("update formwright_alembic_version set version_num = '0001'",))


@faults.row("database", "database", "warning", "there is no", "formwright serve --database")
def no_database(world):
    world.options["database"] = "new.db"


@faults.row("database", "database", "warning", "has no searches yet", "makes the tables")
def an_empty_file(world):
    (world.folder / "empty.db").touch()
    world.options["database"] = "empty.db"


@faults.row("database", "database", "failed", "file is not a database", "name another --database")
def a_file_of_something_else(world):
    (world.folder / "text.db").write_text("no database " * 100)
    world.options["database"] = "text.db"


@faults.row("database", "database", "failed", "there is no folder", "mkdir -p")
def no_folder(world):
    world.options["database"] = "no/folder.db"


def break_table(world, name):
    """The first page of a table."""
    path = sqlite(world)
    connection = sqlite3.connect(path)
    wanted = "select rootpage, (select page_size from pragma_page_size) from sqlite_schema"
    page, size = connection.execute(f"{wanted} where name = ?", [name]).fetchone()
    connection.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


@faults.row("integrity", "integrity", "failed", "returns error code 11", "formwright restore")
def a_broken_page(world):
    break_table(world, "formwright_events")


@faults.row("database", "database", "failed", "malformed", "formwright restore")
def a_broken_version(world):
    break_table(world, "formwright_alembic_version")


@faults.row("integrity", "write-ahead log", "warning", "MiB: somebody has been", "restart")
def a_long_log(world):
    path = sqlite(world)
    world.patch.setattr(database, "LONG_LOG", 1000)
    reader = sqlite3.connect(path, isolation_level=None)
    world.stack.callback(reader.close)
    reader.execute("begin")
    reader.execute("select * from formwright_searches").fetchall()
    run(path, ("create table other (x)",), ("insert into other values (zeroblob(100000))",))


@faults.row("integrity", "write-ahead log", "warning", "readers wait", "formwright serve")
def no_log(world):
    run(sqlite(world), ("pragma user_version = 0",))
    connection = sqlite3.connect(world.options["database"])
    connection.execute("pragma journal_mode = delete")
    connection.close()


def mounted(world, kind):
    world.options["database"] = str(world.folder / "searches.db")
    (world.folder / "mounts").write_text(f"a / ext4 rw 0 0\nb {world.folder} {kind} rw 0 0\n")
    world.patch.setattr(database, "MOUNTS", world.folder / "mounts")


@faults.row("disk", "file system", "failed", "of a network (nfs4)", "FORMWRIGHT_DATABASE=URL")
def a_folder_of_a_network(world):
    mounted(world, "nfs4")


@faults.row("disk", "file system", "warning", "perhaps of another host", "folder of this machine")
def a_folder_of_another_host(world):
    mounted(world, "9p")


# PostgreSQL


def postgresql(world):
    world.options["database"] = url = world.database()
    world.store(url, id)
    return url


@faults.row("database", "database", "failed", "onnection", "start PostgreSQL")
def nobody_listens(world):
    world.options["database"] = "postgresql://tests@127.0.0.1:1/tests"


@faults.row("database", "database", "failed", "does not exist", "createdb")
def no_such_database(world):
    world.options["database"] = world.database().replace("/tests", "/others")


@faults.row("integrity", "clock", "warning", "90.0 s behind ours", "timedatectl")
def a_clock_that_is_wrong(world):
    postgresql(world)
    there = datetime(2026, 1, 31, 12, tzinfo=UTC)
    world.patch.setattr(health, "clock", lambda connection: there)
    world.clock = lambda: there + timedelta(seconds=90)


@faults.row("integrity", "encoding", "failed", "SQL_ASCII", "createdb --encoding UTF8")
def another_encoding(world):
    url = world.database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop database if exists ascii_only")
        connection.execute(
            "create database ascii_only encoding 'SQL_ASCII' template template0"
            " lc_collate 'C' lc_ctype 'C'"
        )
    name = url.partition("@/")[2].partition("?")[0]
    world.options["database"] = url.replace(f"/{name}?", "/ascii_only?")


@faults.row("integrity", "connections", "warning", "of 197 connections are free", "max_connections")
def few_connections(world):
    postgresql(world)
    world.patch.setattr(database, "ROOM", 1000)


@faults.row("integrity", "postgresql", "warning", "no corrections", "99 or newer")
def an_old_postgresql(world):
    postgresql(world)
    world.patch.setattr(database, "OLDEST", 990000)


@faults.row("integrity", "rights", "failed", "may make no tables", "GRANT CREATE, USAGE ON SCHEMA")
def no_right_to_make_tables(world):
    url = world.database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("revoke create on schema public from public")
        if not connection.execute("select 1 from pg_roles where rolname = 'reader'").fetchone():
            connection.execute("create role reader login")
    world.options["database"] = url.replace("tests@", "reader@")


# what waits


def create(world, given):
    world.store(given, lambda store: store.create_search(SearchSpec(), "request"))


HOURS = "2020-01-01 00:00:00"


@faults.row("searches", "searches", "warning", "is a scheduler running?", "formwright scheduler")
def a_search_that_nobody_runs(world):
    path = sqlite(world)
    create(world, path)
    run(path, ("update formwright_searches set updated = ?", [HOURS]))


@faults.row("searches", "searches", "warning", "(no workers: Ray did not", "formwright scheduler")
def a_search_that_was_given_back(world):
    a_search_that_nobody_runs(world)
    path = world.options["database"]
    run(path, ("update formwright_searches set error = 'no workers: Ray did not start'",))


@faults.row("searches", "searches", "warning", "lost their scheduler", "formwright scheduler")
def a_lease_that_ran_out(world):
    a_search_that_nobody_runs(world)
    change = "update formwright_searches set state = 'RUNNING', lease_expires = ?"
    run(world.options["database"], (change, [HOURS]))


@faults.row("searches", "searches", "warning", "is a scheduler running?", "formwright scheduler")
def a_search_that_nobody_runs_in_postgresql(world):
    url = postgresql(world)
    create(world, url)
    with psycopg.connect(url) as connection:
        connection.execute("update formwright_searches set updated = %s", [HOURS])


@faults.row("searches", "artifacts", "warning", "no compiler", "--number 3 --no-wait")
def an_artifact_that_failed(world):
    path = sqlite(world)
    create(world, path)
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(" ")
    run(
        path,
        ("pragma foreign_keys = off",),
        (
            "insert into formwright_artifacts (search_key, number, seeds, state, error, done,"
            " total, step, owner, epoch, tries, created, updated)"
            " values (1, 3, 1, 'FAILED', 'no compiler', 0, 1, '', '', 1, 3, ?, ?)",
            [now, now],
        ),
    )


@pytest.mark.parametrize(("plant", "check", "name", "status", "says", "remedy"), faults)
def test_a_fault_is_found(world, plant, check, name, status, says, remedy):
    planted.assert_found(world, plant, check, name, status, says, remedy)
