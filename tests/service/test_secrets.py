"""A team's server as people run it: what it prints, logs, keeps and shows has no secret in it."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from formwright.__main__ import main
from formwright.service.embedded import address_of

from .tokens import secrets_in

COMMAND = [sys.executable, "-m", "formwright"]
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("FORMWRIGHT_")}


class Done:
    """What a command has returned and printed."""

    def __init__(self, returncode, stdout, stderr):
        self.returncode, self.stdout, self.stderr = returncode, stdout, stderr


@pytest.fixture
def run(monkeypatch, capfd):
    """Runs a command in this process, with these variables of its environment."""
    for name in set(os.environ) - set(CLEAN):
        monkeypatch.delenv(name)

    def run(*arguments, **environment):
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            capfd.readouterr()
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as error:
                code = error.code
        return Done(code, *capfd.readouterr())

    return run


@contextmanager
def team_server(folder, database, certificates):
    """Yields the address, and the server's process."""
    certificate, key = certificates.server
    given = [f"--certificate={certificate}", f"--key={key}", "--host=0.0.0.0", "--port=0"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--workers=0", "--with-parent", *given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=CLEAN | {"FORMWRIGHT_DATABASE": str(database)},
        )
        try:
            yield address_of(process).replace("0.0.0.0", "127.0.0.1"), process
        finally:
            process.stdin.close()
            process.wait(60)
            process.stdout.close()


def family(pid):
    """What the command lines of a process and its descendants say."""
    found = [Path(f"/proc/{pid}/cmdline").read_bytes().decode()]
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for child in children.read_text().split() if children.exists() else []:
        found += family(int(child))
    return found


def test_a_team_from_its_first_token_to_a_revoked_one(run, tmp_path, certificates):
    folder = tmp_path / "server"
    folder.mkdir()
    database = folder / "team.db"
    where = ("--database", database)
    made = [
        run("token", "create", "--owner", owner, "--scope", scope, "--expires", "2h", *where)
        for owner, scope in [("alice", "submit"), ("bob", "read"), ("root", "admin")]
    ]
    alice, bob, root = tokens = [done.stdout.strip() for done in made]
    said = [done.stderr for done in made]
    ca = ("--ca", certificates.ca)
    with team_server(folder, database, certificates) as (address, process):
        lines = family(process.pid)
        there = ("--server", address, *ca)
        small = ["--trials", "1", "--steps", "1", "--target", "eager"]
        mine = run("submit", *there, *small, "--watch", FORMWRIGHT_TOKEN=alice)
        id = mine.stdout.split()[0]
        (tmp_path / "bob").write_text(bob + "\n")
        theirs = run("searches", *there, "-o", "json", "--token-file", tmp_path / "bob")
        refusals = [
            run("report", *there, id, "--token-file", tmp_path / "bob"),
            run("cancel", *there, id, "--token-file", tmp_path / "bob"),
            run("searches", *there),
            run("searches", *there, "--filter", f"state = {alice}", FORMWRIGHT_TOKEN=alice),
            run("searches", *there, FORMWRIGHT_TOKEN=alice[:-1] + "-"),
            run("searches", "--server", address),
        ]
        everything = run("searches", *there, "-o", "json", FORMWRIGHT_TOKEN=root)
        shown = run("config", FORMWRIGHT_TOKEN=alice)
        listed = run("token", "list", "-o", "json", *where)
        revoked = run("token", "revoke", alice[3:15], *where)
    lines += family(os.getpid())

    assert mine.returncode == 0, mine.stderr
    assert theirs.stdout == ""
    assert [json.loads(line)["owner"] for line in everything.stdout.splitlines()] == ["alice"]
    assert [done.returncode for done in refusals] == [2] * len(refusals)
    wanted = [
        f"there is no search '{id}'",
        "needs a token with the scope submit",
        "wants a token",
        "fw_",
        "the token is not valid",
        "it speaks TLS",
    ]
    for done, text in zip(refusals, wanted, strict=True):
        assert text in done.stderr
        assert len(done.stderr.splitlines()) == 1
    states = {json.loads(line)["owner"]: json.loads(line) for line in listed.stdout.splitlines()}
    assert {name: row["scope"] for name, row in states.items()} == {
        "alice": "submit",
        "bob": "read",
        "root": "admin",
    }
    assert "is revoked" in revoked.stdout
    assert "***" in shown.stdout

    for text in [*lines, *said, *(done.stderr for done in refusals)]:
        assert not secrets_in(text, tokens), text
    for done in (mine, theirs, *refusals, everything, shown, listed, revoked):
        assert not secrets_in(done.stdout + done.stderr, tokens)
    assert not secrets_in(folder, tokens)  # the database and the log
    assert secrets_in(tmp_path, tokens)  # the test would find one


def test_a_password_of_a_database_is_in_no_list_of_processes(run):
    """Nobody listens there; what is looked at is how it is called."""
    url = "postgresql://me:hidden-word@127.0.0.1:1/none"

    done = run("serve", "--port", "0", FORMWRIGHT_DATABASE=url)

    assert done.returncode == 2
    assert "hidden-word" not in done.stdout + done.stderr


@pytest.mark.parametrize("span", ["", "0d", "1w", "-1d", "soon", "1.5h", "99999999d"])
def test_a_span_that_is_none_is_said(run, tmp_path, span):
    done = run(
        "token", "create", "--owner", "a", f"--expires={span}", "--database", tmp_path / "a.db"
    )

    assert done.returncode == 2
    assert "expires: wanted a span as 12h" in done.stderr
    assert not (tmp_path / "a.db").exists()
