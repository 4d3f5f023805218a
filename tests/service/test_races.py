"""What may happen at the same time, step by step: each of these was once wrong.

Next: `test_gate_races.py`, those of the gate."""

import asyncio
import errno
import os
import sqlite3
import ssl
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest

from formwright.service.certs import authority, issue
from formwright.service.errors import InternalError, Stopping
from formwright.service.records import ArtifactState, SearchState
from formwright.service.scheduler import _on_signal
from formwright.service.server import serve
from formwright.service.settings import Settings
from formwright.service.store import artifacts, open_store
from formwright.service.store.backups import backup
from formwright.service.store.restoring import restore
from formwright.service.supervisor import Supervisor
from formwright.service.tls import stamp_of
from formwright.service.watch import Hub
from formwright.service.web import site
from formwright.service.web.threads import Threads

from .pages import showing
from .test_retention import SPEC, searched

LIMIT_S = 120


def test_what_is_wanted_while_it_is_pruned_stays(store, url, monkeypatch):
    """Somebody has asked for an artefact, and has not committed, while retention looks."""
    id, other = searched(store), open_store(url)
    inserted, looked = threading.Event(), threading.Event()
    record = artifacts._record

    def slow(*given):
        made = record(*given)
        if threading.current_thread() is user:
            inserted.set()
            looked.wait(1.0)  # on SQLite nobody else gets as far as a look
        return made

    found = []
    user = threading.Thread(target=lambda: found.append(other.artifacts.create(id, 0, 1)))
    monkeypatch.setattr(artifacts, "_record", slow)
    user.start()
    try:
        assert inserted.wait(LIMIT_S)
        assert list(store.retention.searches(0.0)) == []
    finally:
        looked.set()
        user.join()
        other.close()
    assert found[0].state is ArtifactState.QUEUED
    assert store.artifacts.get(id, 0).state is ArtifactState.QUEUED


def test_those_whom_nobody_waits_for_do_not_wait_for_the_database(path):
    store = open_store(str(path), busy_s=LIMIT_S)
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    gone, errors = threading.Event(), []

    def write():
        try:
            with store.unless(gone.is_set):
                store.create_search(SPEC, "")
        except InternalError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    gone.set()
    for thread in threads:
        thread.join(LIMIT_S / 2)
    assert errors == ["nobody waits for this change any more"] * 4
    holder.close()
    store.close()


def test_a_restored_database_is_its_owners_only(file_store, path, tmp_path):
    searched(file_store)
    backup(str(path), tmp_path / "backup.db")
    restore(tmp_path / "backup.db", str(tmp_path / "restored.db"))
    modes = {(tmp_path / name).stat().st_mode & 0o777 for name in ("backup.db", "restored.db")}
    assert modes == {0o600}


def test_threads_end_while_work_comes_and_goes():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(150):

            async def story():
                threads = Threads(2, "racing")
                asked = [asyncio.ensure_future(threads.run(int)) for _ in range(6)]
                await asyncio.sleep(0)
                closing = threading.Thread(target=threads.close, daemon=True)
                closing.start()
                await asyncio.gather(*asked, return_exceptions=True)
                closing.join(LIMIT_S)
                assert not closing.is_alive()

            asyncio.run(story())
    finally:
        sys.setswitchinterval(interval)


def test_a_thread_that_cannot_be_begun_is_begun_later(monkeypatch):
    async def story():
        threads = Threads(1, "racing")
        with monkeypatch.context() as patch:

            def none(self):
                raise RuntimeError("can't start new thread")

            patch.setattr(threading.Thread, "start", none)
            with pytest.raises(RuntimeError, match="new thread"):
                await threads.run(int)
        assert await threads.run(int, "7") == 7
        threads.close()

    asyncio.run(asyncio.wait_for(story(), LIMIT_S))


def test_a_second_signal_may_come_while_the_first_is_told():
    told = threading.Event()
    asked = _on_signal(told.set)
    with told._cond:  # as where a signal interrupts `wait` or `set`
        asked.put(None)
        asked.put(None)
    assert told.wait(LIMIT_S)


def test_a_scheduler_that_cannot_be_started_is_started_later(file_store, monkeypatch):
    async def story():
        supervisor, tries = Supervisor(Settings(), file_store), []

        async def start(owner):
            tries.append(owner)
            if len(tries) == 3:
                supervisor.stop()
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

        monkeypatch.setattr(supervisor, "_start", start)
        monkeypatch.setattr("formwright.service.supervisor.FIRST_WAIT_S", 0.01)
        await asyncio.wait_for(supervisor.run(), LIMIT_S)
        assert len(tries) == 3
        assert supervisor.restarts == 0  # none has ended

    asyncio.run(story())


@pytest.mark.parametrize("who", ["ready", "shows"])
def test_a_server_that_cannot_say_where_it_is_ends(path, who, monkeypatch):
    """Its standard output is gone, for instance."""

    def gone(address):
        raise BrokenPipeError("gone")

    async def no_scheduler(*_):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    async def story():
        told = {"ready": [gone], "shows": [str, gone]}[who]
        await asyncio.wait_for(serve(settings, *told), LIMIT_S)

    monkeypatch.setattr(Supervisor, "_start", no_scheduler)
    settings = Settings(database=str(path), port=0, web="127.0.0.1:0")
    with pytest.raises(BrokenPipeError):
        asyncio.run(story())
    assert not path.with_name("store.db-wal").exists()  # it was closed in order


def test_files_have_changed_once_they_may_be_read(tmp_path):
    file = tmp_path / "key.pem"
    file.write_text("key")
    before = stamp_of(str(file), "")
    assert before == stamp_of(str(file))
    file.chmod(0o640)
    assert stamp_of(str(file)) != before
    newer, before = tmp_path / "newer.pem", stamp_of(str(file))
    newer.write_text("new")
    os.utime(newer, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    newer.replace(file)  # as old as the one before
    assert stamp_of(str(file)) != before
    assert stamp_of(str(tmp_path / "missing.pem")) == ()


def test_a_page_shows_the_certificate_that_is_there(file_store, tmp_path, monkeypatch):
    """One that is renewed as a whole; of one that does not fit its key nothing is shown."""
    monkeypatch.setattr(site, "LOOK_S", 0.02)
    by, _ = authority(tmp_path)

    def issued():
        return issue(tmp_path, by, "server", "server", ["127.0.0.1"], 2)

    certificate, key = issued()
    files = {"certificate": str(certificate), "key": str(key)}
    with showing(file_store, tokens="always", **files) as url:
        place, old = urlsplit(url), certificate.read_text()
        shown = lambda: ssl.get_server_certificate((place.hostname, place.port))  # noqa: E731
        assert shown() == old
        pair = key.read_bytes()
        issued()
        new = certificate.read_text()
        until = time.monotonic() + LIMIT_S
        while shown() != new and time.monotonic() < until:
            time.sleep(0.02)
        assert shown() == new != old
        looked = threading.Event()
        monkeypatch.setattr(site.log, "warning", lambda *_: looked.set())
        key.write_bytes(pair)  # of the one before
        assert looked.wait(LIMIT_S)
        assert shown() == new


def test_nothing_is_read_for_who_watches_a_server_that_has_stopped(file_store):
    async def never(*given):
        raise AssertionError("there are no threads any more")

    async def story():
        hub = Hub(file_store, never)
        hub.stop()
        with pytest.raises(Stopping):
            await anext(hub.follow("x", 0))

    asyncio.run(story())


def test_watchers_are_counted_while_they_come_and_go(file_store):
    hub, done = Hub(file_store, None), threading.Event()

    class Line:
        watchers = 1

    def come_and_go():
        at = 0
        while not done.is_set():
            hub._lines[f"{at % 300}"] = Line()
            hub._lines.pop(f"{(at * 7) % 300}", None)
            at += 1

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            assert hub.watchers <= 301
    finally:
        done.set()
        thread.join()


def test_an_artefact_is_stored_within_its_lease(file_store, monkeypatch, tmp_path):
    """What waits long for the database is still the keeper's."""
    from formwright import search
    from formwright.service import keeper, leases

    id = searched(file_store)
    file_store.artifacts.create(id, 0, 1)
    claim = file_store.artifacts.claim("me", 60)

    def keep(architecture, spec, made, **more):
        made.mkdir()
        (made / "arch.json").write_text("{}")

    def slow(claim, made, finish=file_store.artifacts.finish):
        renewed.wait(LIMIT_S)
        finish(claim, made)

    renewed, renew = threading.Event(), file_store.artifacts.renew
    monkeypatch.setattr(leases, "LEASE_S", 0.03)
    monkeypatch.setattr(search, "keep", keep)
    monkeypatch.setattr(file_store.artifacts, "finish", slow)
    monkeypatch.setattr(
        file_store.artifacts, "renew", lambda *given: renew(*given) and not renewed.set()
    )
    keeper._keep(file_store, claim, tmp_path)
    assert renewed.is_set()
    assert file_store.artifacts.get(id, 0).state is ArtifactState.READY
    assert file_store.get_search(id).state is SearchState.SUCCEEDED
