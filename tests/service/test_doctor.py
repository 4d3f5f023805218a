"""`formwright doctor`: what it says of packages, a database and a server, good and bad."""

import json
import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from formwright.service import checkup
from formwright.service.checkup import Status
from formwright.service.probe import SERVICE
from formwright.service.settings import SETTINGS
from formwright.service.store import open_store


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder is a new one; no variable is set."""
    for setting in SETTINGS.values():
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def doctor(*arguments):
    command = [sys.executable, "-P", "-m", "formwright", "doctor", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def by_name(rows):
    return {row["name"]: row for row in map(json.loads, rows.splitlines())}


def of_database(given=None):
    """The check of the database itself."""
    return next(checkup.of_database(given))


def test_all_is_well(server, database):
    done = doctor("--server", server, "--database", database, "-o", "json")
    rows = by_name(done.stdout)
    assert done.returncode == any(row["status"] == "failed" for row in rows.values())

    for name in ("python", "cores", "settings", "cache", "database", "disk", "server"):
        assert rows[name]["status"] == "ok", rows[name]
    assert rows["server"]["said"] == f"{server} is SERVING and knows every call"
    assert f"{database}, schema 000" in rows["database"]["said"]
    assert "ok" in doctor("--server", server, "--database", database).stdout


def test_nothing_is_there_and_nobody_asked_for_it(folder):
    assert of_database().status is Status.OK
    assert "`formwright serve` makes it" in of_database().said
    assert os.listdir(folder) == []


def test_what_was_named_must_be_there(folder, monkeypatch):
    monkeypatch.setenv("FORMWRIGHT_SERVER", "127.0.0.1:1")
    done = doctor("-o", "json")
    rows = by_name(done.stdout)

    assert done.returncode == 1
    assert rows["server"]["status"] == "failed"
    assert "no answer from 127.0.0.1:1; is `formwright serve`" in rows["server"]["said"]
    assert checkup.of_server("127.0.0.1:2").status is Status.FAILED
    assert of_database("new.db").status is Status.WARNING
    assert os.listdir(folder) == []


def test_a_database_is_not_changed(folder):
    path = folder / "old.db"
    open_store(str(path)).close()
    found = of_database(str(path))
    assert found.status is Status.OK

    for version, status, says in (
        ("0001", Status.WARNING, "is older than ours"),
        ("v9999", Status.FAILED, "is newer than ours"),
    ):
        connection = sqlite3.connect(path)
        with connection:
            connection.execute("update formwright_alembic_version set version_num = ?", [version])
        connection.close()
        before = path.read_bytes()
        found = of_database(str(path))
        assert found.status is status
        assert f"schema {version} {says}" in found.said
        assert path.read_bytes() == before
    assert os.listdir(folder) == ["old.db"]


def test_a_file_of_somebody_else(folder):
    (folder / "empty.db").touch()
    assert of_database("empty.db").status is Status.WARNING
    assert "has no searches yet" in of_database("empty.db").said
    (folder / "text.db").write_text("no database " * 100)
    assert of_database("text.db").status is Status.FAILED
    assert "file is not a database" in of_database("text.db").said
    assert of_database("no/folder.db").status is Status.FAILED
    assert (folder / "empty.db").read_bytes() == b""


def test_any_kind_of_database(url):
    open_store(url).close()
    assert of_database(url).status is Status.OK


@pytest.fixture
def stranger():
    """A server with health alone, which says what it is told."""
    server = grpc.server(ThreadPoolExecutor(4))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", servicer
    server.stop(None).wait()


def test_a_server_that_is_not_well(stranger):
    address, servicer = stranger
    servicer.set(SERVICE.full_name, health_pb2.HealthCheckResponse.NOT_SERVING)
    found = checkup.of_server(address)
    assert found.status is Status.FAILED
    assert "NOT_SERVING" in found.said


def test_a_server_of_something_else(stranger):
    address, _ = stranger
    found = checkup.of_server(address)
    assert found.status is Status.FAILED
    assert f"no answer from {address}" in found.said


def test_a_server_that_hides_its_calls(stranger):
    address, servicer = stranger
    servicer.set(SERVICE.full_name, health_pb2.HealthCheckResponse.SERVING)
    assert checkup.of_server(address).status is Status.OK


def test_settings_that_cannot_be_are_a_row_and_not_the_end(folder):
    (folder / "formwright.toml").write_text("[serve]\ndatabse = 'x'")
    done = doctor("-o", "json")
    rows = by_name(done.stdout)

    assert done.returncode == 1
    assert "Did you mean 'serve.database'?" in rows["settings"]["said"]
    assert rows["database"]["status"] == "failed"
    assert rows["python"]["status"] == "ok"


def test_a_variable_that_nobody_reads(monkeypatch):
    for name in [name for name in os.environ if name.startswith("FORMWRIGHT_")]:
        monkeypatch.delenv(name)
    assert checkup.of_variables().status is Status.OK
    monkeypatch.setenv("FORMWRIGHT_DATABSE", "x")
    found = checkup.of_variables()
    assert found.status is Status.WARNING
    assert "Did you mean 'FORMWRIGHT_DATABASE'?" in found.said


def test_what_the_machine_lacks(folder, monkeypatch):
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CXX", raising=False)
    assert checkup.of_compiler().status is Status.WARNING
    assert "eager" in checkup.of_compiler().said
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert checkup.of_cores().status is Status.WARNING
    (folder / "file").touch()
    monkeypatch.setenv("FORMWRIGHT_CACHE_DIR", str(folder / "file" / "cache"))
    assert checkup.of_cache().status is Status.FAILED


class _Installed:
    """What pip wrote of a package, as far as it is read."""

    def __init__(self, version, requires=()):
        self.version, self.requires = version, list(requires)
        self.metadata = {"Requires-Python": ">=3.11"}


DECLARED = [
    "rich>=13.7",
    "torch<2.14,>=2.13; extra == 'compiler'",
    "formwright[compiler]; extra == 'search'",
    "ray>=2.50; extra == 'search'",
    "grpcio>=1.74; extra == 'client'",
]


@pytest.mark.parametrize(
    ("there", "name", "status", "says"),
    [
        ({}, "torch", "ok", "2.13.5+cpu, wanted"),
        ({"torch": None}, "torch", "warning", "pip install 'formwright[compiler]'"),
        ({"torch": None}, "torch", "warning", "not installed; the part 'compiler' needs"),
        ({"ray": None}, "ray", "warning", "pip install 'formwright[search]'"),
        ({"torch": "2.14.0"}, "torch", "failed", "2.14.0, wanted"),
        ({"grpcio": "1.60"}, "grpcio", "failed", "pip install 'formwright[client]'"),
        ({"rich": None}, "rich", "failed", "not installed; every part needs >=13.7"),
    ],
)
def test_packages(monkeypatch, there, name, status, says):
    versions = {"torch": "2.13.5+cpu", "ray": "2.60", "grpcio": "1.82", "rich": "15.0"} | there
    installed = {n: _Installed(v) for n, v in versions.items() if v}
    installed["formwright"] = _Installed("0.1.0", DECLARED)

    def distribution(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "distribution", distribution)
    rows = {check.name: check for check in checkup.of_packages()}

    assert set(rows) == {"rich", "torch", "ray", "grpcio"}
    assert rows[name].status == status
    assert says in rows[name].said


def test_a_checkout_that_was_not_installed(monkeypatch):
    def distribution(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", distribution)
    (row,) = checkup.of_packages()
    assert row.status is Status.WARNING
    assert checkup.of_python().status is Status.OK
