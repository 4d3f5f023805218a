"""The commands as a user types them: what they print, and what they say when it cannot be."""

import csv
import io
import json
import os
import sqlite3
import subprocess
import sys

import pytest

from formwright.__main__ import main
from formwright.search import Result, SearchSpec, load
from formwright.service import Client
from formwright.service.embedded import address_of, start_server, stop_server

LIMIT_S = 240


def typed(*arguments, **given):
    """A command in a process of its own. Most others are run in this one, which has loaded all
    that they need."""
    command = [sys.executable, "-m", "formwright", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, **given)


@pytest.fixture
def run(capfd, monkeypatch):
    """Runs a command in this process, with these texts on its standard input."""

    def run(*arguments, input=""):
        texts = [os.fsdecode(a) if isinstance(a, bytes) else str(a) for a in arguments]
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(input.encode())))
        capfd.readouterr()
        try:
            code = main(texts)
        except SystemExit as error:
            code = error.code
        return subprocess.CompletedProcess(texts, code, *capfd.readouterr())

    return run


def refused(done):
    """The one line of a refusal."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


# trained in two steps, and not measured, which needs a quiet machine
SMALL = ["--trials", "2", "--steps", "2", "--target", "eager", "--objectives", "quality", "params"]


def test_submit_watch_trials_and_best(server, run):
    submitted = typed("submit", "--server", server, *SMALL, "--watch")
    assert submitted.returncode == 0, submitted.stderr
    id, *lines = submitted.stdout.splitlines()
    assert lines[0] == "search queued"
    assert lines[-1] == "search succeeded"
    assert sum("quality" in line for line in lines) == 2

    watched = run("watch", "--server", server, id)
    assert watched.stdout.splitlines() == lines
    rows = run("trials", "--server", server, id, "-o", "json").stdout.splitlines()
    trials = [json.loads(row) for row in rows]
    assert [trial["number"] for trial in trials] == [0, 1]
    assert f"search {id}, succeeded" in run("trials", "--server", server, id).stdout

    best = [
        json.loads(row)
        for row in run("best", "--server", server, "-o", "json").stdout.split("\n")
        if row
    ]
    assert {row["fingerprint"] for row in best} <= {trial["fingerprint"] for trial in trials}
    least = min(trial["metrics"]["params"] for trial in trials)
    bound = f"params={least}"
    few = run("best", "--server", server, id, "--at-most", bound, "-o", "json").stdout.splitlines()
    assert [json.loads(row)["metrics"]["params"] for row in few] == [least]
    every = ["--all", "--objectives", "quality", "params"]
    assert "best architectures" in run("best", "--server", server, *every).stdout


def test_a_part_of_a_space(server, run):
    knobs = ["--knobs", "width=16", "depth=1", "mixer0=pool|conv"]
    done = run("submit", "--server", server, *SMALL, *knobs, "--watch")
    assert done.returncode == 0, done.stderr
    rows = run(
        "trials", "--server", server, done.stdout.split()[0], "-o", "json"
    ).stdout.splitlines()
    assert len(rows) == 2
    for row in rows:
        assert json.loads(row)["architecture"]["width"] == 16
        assert len(json.loads(row)["architecture"]["layers"]) == 1


def test_a_spec_from_a_file_with_a_change(server, run, tmp_path):
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"trials": 5, "steps": 2, "target": "eager"}))
    submitted = run("submit", "--server", server, "-f", path, "--trials", "1")
    id = submitted.stdout.strip()

    assert run("watch", "--server", server, id).returncode == 0
    assert len(run("trials", "--server", server, id, "-o", "json").stdout.splitlines()) == 1


def test_searches_are_listed(server, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    id = run("submit", "--server", server, *SMALL, "--display-name", "[bold]x").stdout.strip()
    rows = run("searches", "--server", server).stdout
    assert f"{id}" in rows
    assert "[bold]x" in rows
    none = run("best", "--server", server, id, "--at-most", "params=0").stdout
    assert none == "no trial succeeded that is within these bounds\n"


def test_cancel(server, run):
    id = run("submit", "--server", server, "--trials", "500", *SMALL[2:]).stdout.strip()

    assert run("cancel", "--server", server, f"searches/{id}").stdout == f"search {id} cancelled\n"
    assert run("watch", "--server", server, id).returncode == 1
    assert "NOT" not in run("cancel", "--server", server, id).stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["submit", "--trials", "many"], "argument --trials: invalid int value: 'many'"),
        (["submit", "--trials", "-3"], "trials: wanted a whole number from 1"),
        (["submit", "--space", "metafromer"], "Did you mean 'metaformer'?"),
        (["submit", "--task", "digts"], "Did you mean 'digits'?"),
        (["submit", "--knobs", "widht=16"], "Did you mean 'width'?"),
        (["submit", "--knobs", "width=17"], "knobs[0]: '17' is not one of 16, 32, 48, 64"),
        (["submit", "-f", "no such file"], "cannot read no such file"),
        (["watch", "none"], "no search"),
        (["cancel", "none"], "no search"),
        (["best", "--limit", "99999999999"], "limit: wanted 0 to 1000"),
        (["submit", "--display-name", b"\xff"], "surrogates not allowed"),
        (["best", "--at-most", "params"], "'params' is not METRIC=VALUE"),
        (["best", "--at-most", "params=nan"], "no number"),
        (["best", "--objectives", "speed", "--all"], "unknown metric 'speed'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(server, run, arguments, says):
    line = refused(run(arguments[0], "--server", server, *arguments[1:]))
    assert line.startswith(f"formwright {arguments[0]}: ")
    assert says in line


@pytest.mark.parametrize("text", ["{", '{"trials": 1, "trials": 2}', '{"budget": 3}', "[]"])
def test_a_malformed_file_is_one_line(server, run, text):
    line = refused(run("submit", "--server", server, "-f", "-", input=text))
    assert line.startswith("formwright submit: ")


def test_no_server_is_one_line():
    line = refused(typed("watch", "--server", "127.0.0.1:1"))
    assert "no answer from 127.0.0.1:1" in line
    assert "formwright serve" in line


def test_a_port_in_use_is_one_line_and_nothing_is_written(server, tmp_path):
    database = tmp_path / "new.db"
    port = server.rpartition(":")[2]
    line = refused(typed("serve", "--port", port, "--database", database))

    assert f"cannot listen on 127.0.0.1:{port}" in line
    assert "--port" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flags", [["--port", "70000"], ["--workers", "-1"], ["--database", "oracle://x"]]
)
def test_serve_refuses_what_cannot_be(tmp_path, flags):
    assert refused(typed("serve", *flags, cwd=tmp_path)).startswith("formwright serve: ")
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_another_version_is_refused_untouched(tmp_path):
    database = tmp_path / "searches.db"
    process = start_server(database, workers=0)
    address_of(process)
    stop_server(process)
    with sqlite3.connect(database) as connection:
        connection.execute("update formwright_alembic_version set version_num = 'v9999'")
    connection.close()
    before = database.read_bytes()
    line = refused(typed("serve", "--port", "0", "--database", database))

    assert "v9999" in line
    assert database.read_bytes() == before


def test_the_commands_are_listed():
    usage = typed("--help").stdout
    for command in ("serve", "submit", "searches", "watch", "best", "trials", "cancel"):
        assert command in usage


def test_a_report_and_what_is_kept(server, run, tmp_path):
    submitted = run("submit", "--server", server, *SMALL, "--watch", "--display-name", "mine")
    id = submitted.stdout.split()[0]
    picture, saved = tmp_path / "search.png", tmp_path / "search.json"
    named = ["--picture", picture, "--save", saved]
    done = run("report", "--server", server, id, *named)
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert first == f"search {id} (mine), succeeded"
    assert "quality" in done.stdout
    assert lines[-2:] == [f"drawn: {picture}", f"saved: {saved}"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    result = Result.load(saved)
    assert [trial.number for trial in result.trials] == [0, 1]

    to = tmp_path / "kept"
    asked = ["fetch", "--server", server, id, "--best", "params"]
    assert run(*asked, "--seeds", "1", "--to", to, "--no-wait").returncode == 0
    assert not to.exists()
    kept = run(*asked, "--to", to)
    assert kept.returncode == 0, kept.stderr
    least = min(result.trials, key=lambda trial: trial.values["params"])
    assert kept.stdout.splitlines()[-1] == f"trial {least.number} of {id} is in {to}"
    architecture, _ = load(to)
    assert architecture == least.architecture

    assert "something else" in refused(run(*asked, "--to", tmp_path))
    assert "wanted 1 to 100" in refused(run(*asked, "--seeds", "101", "--to", to))
    assert "no trial 9" in refused(run(*asked[:4], "--number", "9", "--to", tmp_path / "new"))
    assert "quality" in refused(run(*asked[:4], "--best", "qualty", "--to", tmp_path / "new"))


def test_a_database_without_a_server(run, tmp_path):
    path = tmp_path / "searches.db"
    assert "there are no searches in" in refused(run("searches", "--local", path))
    with Client.local(path) as client:
        search = client.submit(SearchSpec(), display_name="mine")
    (row,) = run("searches", "--local", path, "-o", "json").stdout.splitlines()
    assert json.loads(row)["search"] == search.id
    header, line = run("searches", "--local", path, "-o", "csv").stdout.splitlines()
    assert dict(zip(header.split(","), next(csv.reader([line])), strict=True))["state"] == "QUEUED"
    assert "No such file" in refused(run("report", "--local", path, "--save", tmp_path / "a" / "b"))
    done = run("cancel", "--local", path, search.id)
    assert done.stdout == f"search {search.id} cancelled\n"
    assert run("watch", "--local", path).returncode == 1
    assert "file is not a database" in refused(run("searches", "--local", __file__))
