"""Two who fetch one artefact to one place, on file systems of all kinds."""

import errno
import fcntl
import os

import pytest

from formwright.service.client.downloads import Download
from formwright.service.errors import InvalidRequest
from formwright.service.records import ArtifactFile, ArtifactRecord, ArtifactState

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.fixture
def download(tmp_path):
    """Makes downloads of one artefact, to one place."""
    file = ArtifactFile("model.safetensors", 0, EMPTY)
    known = {"search_id": "0a", "number": 0, "state": ArtifactState.READY, "files": (file,)}
    fields = {name: known.get(name) for name in ArtifactRecord.__dataclass_fields__}
    record = ArtifactRecord(**fields)
    return lambda: Download(tmp_path / "fetched", record)


def test_the_second_is_told_and_goes_on_once_the_first_has_ended(download):
    first, second = download(), download()
    (part,) = first.missing()
    with pytest.raises(InvalidRequest, match="another process fetches it"):
        second.missing()
    part.finish()
    where = first.finish()
    first.close()
    assert second.missing() == []  # it is there by now
    assert second.finish() == where
    assert not list(where.parent.glob(".*.part"))


def test_where_the_first_gives_it_its_name_between_two_steps_of_the_second(download, monkeypatch):
    first, second = download(), download()
    (part,) = first.missing()
    part.finish()
    lock = fcntl.flock

    def late(held, how):
        if how & fcntl.LOCK_NB:
            monkeypatch.undo()
            first.finish()
            first.close()
        lock(held, how)

    monkeypatch.setattr(fcntl, "flock", late)
    assert second.missing() == []
    assert second.finish().is_dir()


def test_a_process_that_was_forked_meanwhile_keeps_nobody_out(download):
    first = download()
    first.missing()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:  # it holds what we hold
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    try:
        first.close()
        second = download()
        assert len(second.missing()) == 1
        second.close()
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


def test_a_file_system_without_locks_is_no_hindrance(download, monkeypatch):
    def none(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", none)
    assert len(download().missing()) == 1

    def broken(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        download().missing()


def test_one_that_was_given_up_on_the_way_holds_nothing(download):
    given_up = download()
    given_up.close()
    given_up.missing()  # in a thread that nobody waits for
    assert len(download().missing()) == 1
