"""Backups that cannot be made, and files that are none: nothing is left, a line says why."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from formwright.search import SearchSpec
from formwright.service import backup, restore
from formwright.service.cli.backup import backup as backup_command
from formwright.service.cli.backup import restore as restore_command
from formwright.service.errors import InvalidRequest, NotAllowed, NotFound, SetupError
from formwright.service.store import open_store
from formwright.service.store.soundness import check as check_file
from formwright.service.store.soundness import file_database

from . import consistent
from .consistent import sql
from .writers import filled


@pytest.fixture
def source(tmp_path):
    """A database with something in it."""
    (tmp_path / "made").mkdir()
    return filled(tmp_path / "source.db", tmp_path / "made")


def test_one_that_is_killed_leaves_nothing_there(source, tmp_path):
    """What it was writing is taken over by the next one."""
    to = tmp_path / "to" / "backup.db"
    to.parent.mkdir()
    code = """
import sys
from formwright.service import backup

def told(what, done, total):
    if what == "events" and done:
        print("half", flush=True)
        sys.stdin.read()

backup(sys.argv[1], sys.argv[2], told)
"""
    command = [sys.executable, "-c", code, source, str(to)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "half\n"
        with pytest.raises(InvalidRequest, match="another backup is being written"):
            backup(source, to)
        process.kill()
    assert not to.exists()
    assert ".backup.db.part" in os.listdir(to.parent)

    backup(source, to)
    assert os.listdir(to.parent) == ["backup.db"]
    assert check_file(file_database(to), lambda *_: None) == ()
    assert to.stat().st_mode & 0o777 == 0o600


def test_a_disk_that_is_full(source, tmp_path):
    to = tmp_path / "to"
    to.mkdir()
    code = """
import resource, sys
from formwright.__main__ import main

resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
sys.exit(main(["backup", sys.argv[2], "--database", sys.argv[1]]))
"""
    command = [sys.executable, "-c", code, source, str(to / "backup.db")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("formwright backup: no backup was made: the database ")
    assert f"MiB are free in {to}\n" in done.stderr
    assert done.stderr.count("\n") == 1
    assert os.listdir(to) == []


def test_what_is_no_place_for_one(source, tmp_path):
    with pytest.raises(InvalidRequest, match="is there already"):
        backup(source, source)
    with pytest.raises(InvalidRequest, match="there is no folder"):
        backup(source, tmp_path / "none" / "backup")
    with pytest.raises(NotFound, match="there are no searches in"):
        backup(str(tmp_path / "none.db"), tmp_path / "backup")
    sql(tmp_path / "others.db", "CREATE TABLE mine (x)")
    with pytest.raises(NotFound, match="there are no searches in"):
        backup(str(tmp_path / "others.db"), tmp_path / "backup")
    assert not (tmp_path / "none.db").exists()
    made = backup(source, tmp_path)  # a folder: one that is named by the time
    assert Path(made.file).name.startswith("formwright-2")
    sql(source, "UPDATE formwright_alembic_version SET version_num = '9999'")
    with pytest.raises(SetupError, match="9999, newer"):
        backup(source, tmp_path / "backup")


def test_a_database_that_is_not_empty_is_left_as_it_is(url, source, tmp_path):
    backup(source, tmp_path / "backup")
    store = open_store(url)
    search = store.create_search(SearchSpec(), "")
    with pytest.raises(NotAllowed, match="not empty, it has 1 searches, 1 events; name a new"):
        restore(tmp_path / "backup", url)
    assert store.list_searches(10).items == (search,)
    store.close()
    with pytest.raises(NotAllowed, match="not empty"):
        restore(source, source)


def test_what_is_no_backup(source, tmp_path):
    made, target = Path(backup(source, tmp_path / "backup").file), tmp_path / "target.db"
    whole = made.read_bytes()

    def refused(content, match):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(InvalidRequest, match=match):
            restore(tmp_path / "bad", str(target))

    refused(b"", "has none of our tables")
    refused(os.urandom(50_000), "no backup that can be read")
    refused(whole[:20_000], "no backup that can be read")
    refused(whole[: len(whole) * 2 // 3], "no backup that can be read|is damaged")
    refused(whole[: len(whole) // 2] + bytes(4096) + whole[len(whole) // 2 + 4096 :], "is damaged")
    with pytest.raises(NotFound, match="there is no file"):
        restore(tmp_path / "none", str(target))
    sql(made, "UPDATE formwright_alembic_version SET version_num = '9999'")
    with pytest.raises(InvalidRequest, match="revision 9999, newer than this formwright"):
        restore(made, str(target))
    assert not target.exists()


def test_a_failure_in_the_middle_leaves_nothing(source, postgresql, tmp_path):
    made, target = backup(source, tmp_path / "backup"), postgresql()
    # a character that SQLite keeps and PostgreSQL does not
    sql(made.file, "UPDATE formwright_searches SET display_name = 'a' || char(0)")
    with pytest.raises(InvalidRequest, match="a value that the database does not take"):
        restore(made.file, target)
    sql(made.file, "UPDATE formwright_searches SET display_name = ''")
    restore(made.file, target)
    assert consistent.check(target) == (2, 4)


def test_content_that_is_damaged_is_named(source, tmp_path, capsys):
    big = "WHERE sha256 IN (SELECT sha256 FROM formwright_files WHERE size = 300000)"
    sql(source, f"UPDATE formwright_pieces SET data = zeroblob(7) {big} AND at > 0")
    arguments = [str(tmp_path / "backup"), "--database"]
    assert backup_command([*arguments, source]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"backup: {tmp_path / 'backup'}, 2 searches, 8 trials, 2 artefacts")
    assert [line.split()[:2] for line in said[1:]] == [["damaged:", "model.safetensors"]] * 2
    assert restore_command([*arguments, str(tmp_path / "target.db")]) == 1
    assert capsys.readouterr().out.startswith("restored: ")
