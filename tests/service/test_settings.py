"""Which of option, environment, file and default counts, and what is said of wrong settings."""

import csv
import io
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from formwright.service.cli.config import markdown
from formwright.service.cli.output import WRITERS
from formwright.service.configured import DEFAULT, ENVIRONMENT, resolve, resolve_all
from formwright.service.errors import SettingError
from formwright.service.settings import FORMATS, SETTINGS, Settings, server_address

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder and the user's are new ones; no variable is set."""
    for setting in SETTINGS.values():
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def formwright(*arguments):
    command = [sys.executable, "-P", "-m", "formwright", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def port():
    found = resolve(SETTINGS["port"])
    return found.value, found.source


def test_the_documentation_has_the_table():
    """If this fails: `formwright config --markdown` prints what belongs there."""
    page = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- made by .*? -->\n(.*?)\n<!-- end -->", page, re.S)

    assert block == markdown()


def test_every_variable_that_the_package_reads_is_in_the_table():
    parts = [ROOT / part for part in ("compiler", "search", "service")]
    sources = [path for part in parts for path in part.rglob("*.py")] + list(ROOT.glob("*.py"))
    read = {
        name
        for path in sources
        for name in re.findall(r"\"(FORMWRIGHT_[A-Z_]+)\"", path.read_text(encoding="utf-8"))
    }
    assert read == {setting.variable for setting in SETTINGS.values()}


def test_the_table_agrees_with_what_it_is_about():
    assert list(FORMATS) == ["table", *WRITERS]
    rows = {setting.key.removeprefix("serve."): setting for setting in SETTINGS.values()}
    for name in ("database", "host", "port", "workers"):
        assert rows[name].default == getattr(Settings(), name)
    for setting in SETTINGS.values():
        assert setting.may_be(setting.default), setting.name


def test_environment_before_file_before_default(folder, monkeypatch):
    assert port() == (50551, DEFAULT)
    write(folder / "user" / "formwright" / "config.toml", "serve.port = 1")
    assert port() == (1, str(folder / "user" / "formwright" / "config.toml"))
    write(folder / "formwright.toml", "[serve]\nport = 2")
    assert port() == (2, "formwright.toml")
    named = write(folder / "named.toml", "[serve]\nport = 3")
    monkeypatch.setenv("FORMWRIGHT_CONFIG", str(named))
    assert port() == (3, str(named))
    monkeypatch.setenv("FORMWRIGHT_PORT", "4")
    assert port() == (4, ENVIRONMENT)
    monkeypatch.setenv("FORMWRIGHT_PORT", "")  # none
    assert port() == (3, str(named))


def test_one_file_counts_and_not_the_next(folder):
    write(folder / "user" / "formwright" / "config.toml", "[serve]\nport = 1")
    write(folder / "formwright.toml", "[client]\nserver = 'elsewhere:1'")

    assert port() == (50551, DEFAULT)
    assert server_address() == "elsewhere:1"


def test_an_option_counts_most(folder):
    write(folder / "formwright.toml", "[client]\nserver = '127.0.0.1:1'\noutput = 'json'")

    assert "no answer from 127.0.0.1:1;" in formwright("searches").stderr
    assert "no answer from 127.0.0.1:2;" in formwright("searches", "--server", "127.0.0.1:2").stderr
    rows = [json.loads(line) for line in formwright("config").stdout.splitlines()]
    assert {row["setting"]: row["from"] for row in rows}["output"] == "formwright.toml"
    table = csv.DictReader(io.StringIO(formwright("config", "--output", "csv").stdout))
    assert [row["setting"] for row in table] == list(SETTINGS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[serve]\nprot = 1", "unknown setting 'serve.prot'; known: client"),
        ("[serve]\nprot = 1", "Did you mean 'serve.port'?"),
        ("[serv]\nport = 1", "Did you mean 'serve.port'?"),
        ("[serv]", "unknown setting 'serv'"),
        ("port = 1", "unknown setting 'port'"),
        ("serve = 1", "unknown setting 'serve'"),
        ("[serve]\nport = 'x'", "serve.port: wanted a whole number from 0 to 65535, got 'x'"),
        ("[serve]\nport = true", "serve.port: wanted a whole number from 0 to 65535, got True"),
        ("[serve]\nport = 65536", "got 65536"),
        ("[serve]\nport = {a = 1}", "got {'a': 1}"),
        ("[serve]\nhost = 1", "serve.host: wanted a text, got 1"),
        ("[serve]\nworkers = -1", "serve.workers: wanted a whole number from 0, got -1"),
        ("[client]\ndeadline_s = nan", "wanted a number from 0.001 to 86400, got nan"),
        ("[client]\noutput = 'xml'", "wanted one of table, json, yaml, csv, got 'xml'"),
        ("[serve", "is not TOML"),
        ("a = '\udcff'", "is not TOML"),
    ],
)
def test_a_wrong_file_is_one_line(folder, text, says):
    (folder / "formwright.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingError) as raised:
        resolve_all()

    assert "formwright.toml" in str(raised.value)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_whole_number_is_a_number(folder):
    write(folder / "formwright.toml", "[client]\ndeadline_s = 3\n[serve]")
    found = resolve(SETTINGS["deadline"]).value

    assert (found, type(found)) == (3.0, float)


def test_a_file_that_was_named_must_be_there(folder, monkeypatch):
    monkeypatch.setenv("FORMWRIGHT_CONFIG", str(folder / "none.toml"))
    with pytest.raises(SettingError, match=r"cannot read .*none\.toml: No such file"):
        resolve_all()
    monkeypatch.setenv("FORMWRIGHT_CONFIG", str(folder))
    with pytest.raises(SettingError, match="Is a directory"):
        resolve_all()


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("FORMWRIGHT_PORT", "x", "FORMWRIGHT_PORT: wanted a whole number from 0 to 65535, got 'x'"),
        ("FORMWRIGHT_WORKERS", "1.5", "got '1.5'"),
        ("FORMWRIGHT_OUTPUT", "xml", "wanted one of table, json, yaml, csv, got 'xml'"),
        ("FORMWRIGHT_DEADLINE", "inf", "wanted a number from 0.001 to 86400, got 'inf'"),
    ],
)
def test_a_wrong_variable_is_one_line(monkeypatch, variable, value, says):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingError, match=re.escape(says)):
        resolve_all()


def test_the_commands_refuse_with_exit_code_2(folder):
    write(folder / "formwright.toml", "[serve]\nprot = 1")
    for command in ("serve", "scheduler", "searches", "submit", "config"):
        done = formwright(command)
        assert done.returncode == 2
        assert done.stderr.startswith(f"formwright {command}: formwright.toml: unknown setting")
        assert done.stderr.count("\n") == 1
    assert formwright("serve", "--help").returncode == 0
    assert sorted(os.listdir(folder)) == ["formwright.toml"]


def test_a_scheduler_makes_no_database_of_its_own(folder):
    done = formwright("scheduler")

    assert done.returncode == 2
    assert "name the server's database: --database, FORMWRIGHT_DATABASE" in done.stderr
    assert os.listdir(folder) == []


def test_a_password_is_not_shown(folder):
    write(folder / "formwright.toml", "[serve]\ndatabase = 'postgresql://me:secret@host/name'")
    shown = formwright("config", "-o", "json").stdout

    assert "postgresql://me:***@host/name" in shown
    assert "secret" not in shown


def test_a_call_ends_at_its_deadline(folder):
    write(folder / "formwright.toml", "[client]\ndeadline_s = 0.2")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes calls and answers none
        done = formwright("searches", "--server", f"127.0.0.1:{silent.getsockname()[1]}")

    assert done.returncode == 2
    assert done.stderr.startswith("formwright searches: ")
    assert done.stderr.count("\n") == 1
