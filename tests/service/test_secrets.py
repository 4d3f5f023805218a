"""A team's server as people run it: what it prints, logs, keeps and shows has no secret in it."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import psutil
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
    server, said = psutil.Process(pid), []
    for each in (server, *server.children(recursive=True)):
        with suppress(psutil.Error):  # it has ended meanwhile
            said.append(" ".join(each.cmdline()))
    return said


def scheduler_of(pid):
    """A server's child, once it is one of its own: until then it looks like its parent."""
    ends = time.monotonic() + 120
    while time.monotonic() < ends:
        for child in psutil.Process(pid).children():
            with suppress(psutil.Error):
                if any("formwright.service.scheduler" in part for part in child.cmdline()):
                    return child
        time.sleep(0.02)
    raise AssertionError("no scheduler was started")


def test_a_team_from_its_first_token_to_a_revoked_one(run, tmp_path, certificates, monkeypatch):
    monkeypatch.setattr("formwright.service.client.mismatch.PATIENCE_S", 30.0)
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
        scheduler_of(process.pid)
        lines = family(process.pid)
        there = ("--server", address, *ca)
        small = ["--trials", "1", "--objectives", "params", "flops", "--sampler", "random"]
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
    lines += [" ".join(psutil.Process().cmdline())]

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


def test_a_password_of_a_database_is_in_no_list_of_processes():
    """Nobody listens there; what is looked at is how it is called. In a process of its own: a
    server changes how this one logs."""
    url = "postgresql://me:hidden-word@127.0.0.1:1/none"

    done = subprocess.run(
        [*COMMAND, "serve", "--port", "0"],
        capture_output=True,
        text=True,
        env=CLEAN | {"FORMWRIGHT_DATABASE": url},
    )

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


def test_a_server_shows_no_password_and_its_processes_have_none(postgresql, tmp_path):
    """It does start; what is looked at is what it prints, and what its children are given."""
    url = postgresql().replace("tests@", "tests:hidden-word@")
    token = "fw_00112233aabb_" + "x" * 43
    process = subprocess.Popen(
        [*COMMAND, "serve", "--workers=0", "--with-parent", "--port=0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=CLEAN | {"FORMWRIGHT_DATABASE": url, "FORMWRIGHT_TOKEN": token},
    )
    line = process.stdout.readline()
    given, lines = scheduler_of(process.pid).environ(), family(process.pid)
    process.stdin.close()
    process.wait(60)
    process.stdout.close()

    assert line.startswith("formwright serves on")
    assert "hidden-word" not in line + " ".join(lines)
    assert given
    assert not {token, "FORMWRIGHT_TOKEN"} & {*given, *given.values()}


def test_a_new_database_is_its_owners(run, tmp_path):
    for name in ("new.db", "there.db"):
        (tmp_path / "there.db").touch(0o640)
        run("token", "create", "--owner", "a", "--database", tmp_path / name)

    assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "there.db").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "name", ["ca", "ca-key", "server", "server-key", "me-key", "a/b", "-x", ""]
)
def test_no_certificate_takes_the_place_of_a_key(run, tmp_path, name):
    assert run("certs", "--to", tmp_path, "--client", "me").returncode == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    done = run("certs", "--to", tmp_path, f"--client={name}")

    assert name == "" or done.returncode == 2
    assert all(path.read_bytes() == kept for path, kept in before.items())
