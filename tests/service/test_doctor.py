"""`formwright doctor`: what it prints where all is well and where something is not there, and what
it says of packages. The other `test_doctor_*.py` plant the faults."""

import json
import os
import sqlite3
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest

from formwright.__main__ import main
from formwright.service.checks import installed
from formwright.service.checks.finding import Status
from formwright.service.checks.look import Look
from formwright.service.checkup import CHECKS, examined
from formwright.service.settings import SETTINGS
from formwright.service.store import open_store


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder is a new one; no variable is set."""
    for setting in SETTINGS.values():
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def doctor(capsys):
    """The command, without workers, for which it would load Ray in a process of its own."""

    def run(*arguments):
        try:
            code = main(["doctor", "--workers", "0", *map(str, arguments)])
        except SystemExit as error:
            code = error.code
        said = capsys.readouterr()
        return SimpleNamespace(returncode=code, stdout=said.out, stderr=said.err)

    return run


def by_name(rows):
    return {row["name"]: row for row in map(json.loads, rows.splitlines())}


def test_all_is_well(server, database):
    command = [sys.executable, "-P", "-m", "formwright", "doctor"]
    command += ["--server", server, "--database", str(database), "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    rows = by_name(done.stdout)
    assert done.returncode == any(row["status"] == "failed" for row in rows.values())

    for name in ("python", "cores", "settings", "cache", "database", "disk", "integrity", "server"):
        assert rows[name]["status"] == "ok", rows[name]
    assert rows["server"]["said"] == f"{server} is SERVING and knows every call"
    assert f"{database}, schema 0" in rows["database"]["said"]


def test_what_people_see(folder, doctor):
    done = doctor("--database", "new.db")
    lines = done.stdout.splitlines()
    (at,) = (n for n, line in enumerate(lines) if "there is no" in line and "new.db" in line)

    assert "warning" in lines[at]
    assert "→ `formwright serve --database" in " ".join(lines[at : at + 4])
    assert lines[-1].endswith(" failed")


def test_one_check_only(server, doctor):
    done = doctor("--only", "server", "--server", server, "-o", "json")
    assert list(by_name(done.stdout)) == ["server"]
    assert done.returncode == 0
    assert doctor("--only", "server", "--server", "127.0.0.1:1").returncode == 1

    done = doctor("--only", "sever")
    assert done.returncode == 2
    assert "Did you mean 'server'?" in done.stderr


def test_nothing_is_there_and_nobody_asked_for_it(folder, doctor):
    rows = by_name(doctor("-o", "json").stdout)
    assert rows["database"]["status"] == "ok"
    assert "`formwright serve` makes it" in rows["database"]["said"]
    assert rows["server"]["status"] == "warning"
    assert os.listdir(folder) == []


def test_what_was_named_must_be_there(folder, doctor, monkeypatch):
    monkeypatch.setenv("FORMWRIGHT_SERVER", "127.0.0.1:1")
    done = doctor("-o", "json")
    rows = by_name(done.stdout)

    assert done.returncode == 1
    assert rows["server"]["status"] == "failed"
    assert "no answer from 127.0.0.1:1" in rows["server"]["said"]
    assert "formwright serve" in rows["server"]["remedy"]
    assert os.listdir(folder) == []


def test_passwords_are_not_said(doctor):
    done = doctor("--database", "postgresql://me:geheim@127.0.0.1:1/name", "-o", "json")
    assert by_name(done.stdout)["database"]["status"] == "failed"
    assert "geheim" not in done.stdout + done.stderr


def test_a_database_is_not_changed(folder):
    path = folder / "old.db"
    open_store(str(path)).close()
    look = Look({"database": str(path), "workers": 0})
    before = path.read_bytes()
    found = [finding for row in CHECKS for finding in examined(row, look)]
    assert {each.name: each.status for each in found}["database"] is Status.OK
    assert path.read_bytes() == before
    assert os.listdir(folder) == ["old.db"]


@pytest.mark.parametrize("version", ["0001", "v9999"])
def test_a_database_of_another_version_is_not_changed(folder, version):
    path = folder / "old.db"
    open_store(str(path)).close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("update formwright_alembic_version set version_num = ?", [version])
    connection.close()
    before = path.read_bytes()
    for row in CHECKS:
        examined(row, Look({"database": str(path), "workers": 0}))
    assert path.read_bytes() == before
    assert os.listdir(folder) == ["old.db"]


def test_any_kind_of_database(url):
    open_store(url).close()
    found = [
        finding
        for row in CHECKS
        if row.name in ("database", "integrity", "searches")
        for finding in examined(row, Look({"database": url}))
    ]
    assert {each.status for each in found} == {Status.OK}, found
    assert len(found) > 4


def test_settings_that_cannot_be_are_a_row_and_not_the_end(folder, doctor):
    (folder / "formwright.toml").write_text("[serve]\ndatabse = 'x'")
    done = doctor("-o", "json")
    rows = by_name(done.stdout)

    assert done.returncode == 1
    assert "Did you mean 'serve.database'?" in rows["settings"]["said"]
    assert rows["database"]["status"] == "warning"
    assert "not looked at" in rows["database"]["said"]
    assert rows["python"]["status"] == "ok"


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
    there = {n: _Installed(v) for n, v in versions.items() if v}
    there["formwright"] = _Installed("0.1.0", DECLARED)

    def distribution(name):
        if name not in there:
            raise metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(metadata, "distribution", distribution)
    rows = {found.name: found for found in installed.of_packages(Look())}

    assert set(rows) == {"rich", "torch", "ray", "grpcio"}
    assert rows[name].status == status
    assert says in f"{rows[name].said}: {rows[name].remedy}"


def test_a_checkout_that_was_not_installed(monkeypatch):
    def distribution(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", distribution)
    (row,) = installed.of_packages(Look())
    assert row.status is Status.WARNING
    (row,) = installed.of_python(Look())
    assert row.status is Status.OK
