"""Faults of a machine, of settings and of databases, each really planted: the doctor finds each and
says what to do. `test_doctor_network.py` has those of ports, certificates, servers and tokens."""

import os
import resource
import shutil
import sqlite3
import tempfile
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import psycopg
import pytest

from formwright.search import SearchSpec
from formwright.service.checks import database, machine
from formwright.service.store import open_store

from .planted import Faults, assert_found, world  # noqa: F401

faults = Faults()


# the machine


@faults.row("c++", "c++", "warning", "no g++", "apt-get install g++")
def no_compiler(world):
    world.patch.delenv("CXX", raising=False)
    world.patch.setenv("PATH", str(world.folder))


@faults.row("cores", "cores", "warning", "more threads than cores", "OMP_NUM_THREADS=")
def too_many_threads(world):
    world.patch.setenv("OMP_NUM_THREADS", "4096")


@faults.row("open files", "open files", "warning", "512 at once", "LimitNOFILE=65536")
def few_open_files(world):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    world.stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))


@faults.row("memory", "memory", "warning", "1.0 GiB free; 16 workers want", "--workers 1,")
def little_memory(world):
    world.options["workers"] = 16
    (world.folder / "meminfo").write_text("MemTotal: 99999999 kB\nMemAvailable: 1048576 kB\n")
    world.patch.setattr(machine, "MEMORY", world.folder / "meminfo")


@faults.row("memory", "memory", "warning", "0.1 GiB free; 2 workers want", "--workers 0,")
def little_memory_in_a_container(world):
    (world.folder / "memory.max").write_text("1073741824\n")
    (world.folder / "memory.current").write_text("966367641\n")
    world.patch.setattr(machine, "CGROUP", world.folder)


def free(world, size):
    world.patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=size))


@faults.row("shared memory", "shared memory", "warning", "64 MiB free", "--shm-size=256m")
def little_shared_memory(world):
    free(world, 64 * 2**20)


@faults.row("disk", "disk", "failed", "0.0 GiB free", "make room")
def a_disk_that_is_full(world):
    free(world, 2**20)


@faults.row("disk", "disk", "warning", "0.5 GiB free", "FORMWRIGHT_DATABASE=FILE")
def a_disk_that_is_nearly_full(world):
    free(world, 2**29)


@faults.row("temporary files", "temporary files", "warning", "0.5 GiB free", "TMPDIR=")
def little_room_for_temporary_files(world):
    free(world, 2**29)


@faults.row("temporary files", "temporary files", "failed", "cannot write in", "TMPDIR=")
def no_temporary_files(world):
    (world.folder / "file").touch()
    world.patch.setattr(tempfile, "tempdir", str(world.folder / "file" / "tmp"))


@faults.row("cache", "cache", "failed", "cannot write in", "FORMWRIGHT_CACHE_DIR=FOLDER")
def a_cache_that_cannot_be(world):
    (world.folder / "file").touch()
    world.patch.setenv("FORMWRIGHT_CACHE_DIR", str(world.folder / "file" / "cache"))


@faults.row("workers", "workers", "failed", "no Ray cluster answers", "ray start --head --port=1")
def a_cluster_where_nobody_listens(world):
    world.options["ray"] = "127.0.0.1:1"


@faults.row("workers", "workers", "failed", "cannot be loaded", "formwright[search]")
def a_ray_that_is_broken(world):
    (world.folder / "ray.py").write_text("raise ImportError('half of it is missing')")
    paths = [str(world.folder), os.environ.get("PYTHONPATH", "")]
    world.patch.setenv("PYTHONPATH", os.pathsep.join(paths))


# settings and secrets


@faults.row("settings", "settings", "failed", "Did you mean 'serve.database'?", "formwright config")
def a_setting_that_nobody_knows(world):
    (world.folder / "formwright.toml").write_text("[serve]\ndatabse = 'x'")


@faults.row("port", "port", "warning", "not looked at: FORMWRIGHT_PORT", "formwright config")
def a_setting_that_is_no_number(world):
    world.patch.setenv("FORMWRIGHT_PORT", "high")


@faults.row("variables", "variables", "warning", "Did you mean 'FORMWRIGHT_DATABASE'?", "unset")
def a_variable_that_nobody_reads(world):
    world.patch.setenv("FORMWRIGHT_DATABSE", "x")


@faults.row("secrets", "settings file", "warning", "the password of the database", "chmod 600")
def a_password_that_all_may_read(world):
    path = world.folder / "formwright.toml"
    path.write_text("[serve]\ndatabase = 'postgresql://me:secret@host/name'")
    path.chmod(0o644)


# SQLite


def sqlite(world, name="searches.db"):
    """A new database, named."""
    path = world.folder / name
    open_store(str(path)).close()
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


@faults.row("integrity", "integrity", "failed", "invalid page", "formwright restore")
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
    open_store(url).close()
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
    world.clock = lambda: datetime.now(UTC) + timedelta(seconds=90)


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


def create(url):
    store = open_store(url)
    try:
        return store.create_search(SearchSpec(), "request").id
    finally:
        store.close()


HOURS = "2020-01-01 00:00:00"


@faults.row("searches", "searches", "warning", "is a scheduler running?", "formwright scheduler")
def a_search_that_nobody_runs(world):
    path = sqlite(world)
    create(str(path))
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
    create(url)
    with psycopg.connect(url) as connection:
        connection.execute("update formwright_searches set updated = %s", [HOURS])


@faults.row("searches", "artifacts", "warning", "no compiler", "--number 3 --no-wait")
def an_artifact_that_failed(world):
    path = sqlite(world)
    create(str(path))
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(" ")
    run(
        path,
        ("pragma foreign_keys = off",),
        (
            "insert into formwright_artifacts (search_key, number, seeds, state, error, done, total,"
            " step, owner, epoch, tries, created, updated)"
            " values (1, 3, 1, 'FAILED', 'no compiler', 0, 1, '', '', 1, 3, ?, ?)",
            [now, now],
        ),
    )


@pytest.mark.parametrize(("plant", "check", "name", "status", "says", "remedy"), faults)
def test_a_fault_is_found(world, plant, check, name, status, says, remedy):  # noqa: F811
    assert_found(world, plant, check, name, status, says, remedy)
