"""What a stranger, a reader that is slow, or a page that takes long may cost: bounded by the page.

Times are made short; nothing here asserts one. Who may look: `test_web_doors.py`."""

import asyncio
import contextlib
import http.client
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from functools import partial

import pytest

from formwright.service.access import Scope
from formwright.service.certs import authority, issue
from formwright.service.web import app, asks, findings, live, site
from formwright.service.wire import search_pb2 as pb

from . import shown
from .pages import ask, ask_raw, listening, log_in, place, showing

FORM = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
FORM += b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
FILE = b"GET /static/plotly.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(site, "TICKS", 1)
    monkeypatch.setattr(site, "HEAD_S", 0.2)
    monkeypatch.setattr(site, "STALLED_S", 0.2)


def until_hung_up_on(wire):
    """What has come before."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := wire.recv(65536):
            found += piece
    return found


def test_a_form_that_never_comes_is_hung_up_on(file_store, hurried, monkeypatch):
    with showing(file_store) as url:
        assert ask_raw(url, FORM) == ""
        assert ask_raw(url, FORM + b"token=") == ""
        monkeypatch.setattr(site, "HEAD_S", 30.0)
        assert ask(url, "/healthz").status == 200


@pytest.mark.parametrize("bound", ["STALLED_S", "ANSWER_S"])
def test_who_reads_no_more_is_hung_up_on(file_store, monkeypatch, bound):
    monkeypatch.setattr(site, "TICKS", 1)
    monkeypatch.setattr(site, bound, 0.2)
    gone, made = threading.Event(), site._Connection.connection_lost

    def lost(self, error):
        made(self, error)
        gone.set()

    monkeypatch.setattr(site._Connection, "connection_lost", lost)
    with showing(file_store) as url, socket.socket() as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.settimeout(30)
        wire.connect(place(url))
        wire.sendall(FILE)
        assert gone.wait(30)
        assert len(until_hung_up_on(wire)) < 4_000_000  # not all of it


def test_streams_and_idle_connections_are_left_alone(file_store, monkeypatch):
    monkeypatch.setattr(site, "TICKS", 1)
    for limit in ("HEAD_S", "STALLED_S", "ANSWER_S"):
        monkeypatch.setattr(site, limit, 1.0)
    monkeypatch.setattr(live, "BEAT_S", 0.25)
    claim, _ = shown.running(file_store, 1)
    last = file_store.get_search(claim.search.id).last_sequence
    with showing(file_store) as url:
        idle = http.client.HTTPConnection(*place(url), timeout=30)
        idle.connect()
        kept = idle.sock
        for _ in range(2):
            idle.request("GET", "/static/icon.svg")
            assert idle.getresponse().read().startswith(b"<svg")
            with listening(url, f"/searches/{claim.search.id}/live?after={last}") as events:
                assert [next(events)[0] for _ in range(6)] == ["beat"] * 6  # longer than any limit
        assert idle.sock is kept
        idle.close()


@pytest.mark.parametrize("tls", [False, True])
def test_silent_connections_are_few(file_store, tmp_path, monkeypatch, tls):
    monkeypatch.setattr(site, "TICKS", 1)
    monkeypatch.setattr(site, "HELD", 8)
    files = {}
    if tls:
        by, _ = authority(tmp_path)
        made = issue(tmp_path, by, "server", "server", ["localhost", "127.0.0.1"], 2)
        files = dict(zip(("certificate", "key"), map(str, made), strict=True))
    with showing(file_store, **files) as url, contextlib.ExitStack() as held:
        monkeypatch.setattr(site, "HEAD_S", 1.0)
        silent = []
        for _ in range(20):
            silent.append(held.enter_context(socket.create_connection(place(url), timeout=30)))
        for wire in silent[8:]:
            assert until_hung_up_on(wire) == b""
        if not tls:
            for wire in silent[:8]:
                assert until_hung_up_on(wire) == b""
            monkeypatch.setattr(site, "HEAD_S", 30.0)
            assert ask(url, "/healthz").status == 200


def test_tls_must_shake_hands_in_time(file_store, tmp_path, hurried):
    by, _ = authority(tmp_path)
    certificate, key = issue(tmp_path, by, "server", "server", ["localhost", "127.0.0.1"], 2)
    with showing(file_store, certificate=str(certificate), key=str(key)) as url:
        assert ask_raw(url, b"") == ""


class Slow:
    """Figures that take until `go`; how many were begun."""

    def __init__(self):
        self.go, self.begun, self.first = threading.Event(), 0, threading.Event()

    def make(self, *_):
        self.begun += 1
        self.first.set()
        assert self.go.wait(60)


@pytest.fixture
def slow(monkeypatch):
    made = Slow()
    monkeypatch.setattr(findings, "FIGURES", {"front": made.make, "growth": made.make})
    yield made
    made.go.set()


def test_what_takes_long_holds_nobody_up(file_store, slow):
    id = shown.ended(file_store, 3)
    with showing(file_store) as url:
        path = f"/searches/{id}/figures/growth?x="
        paths = [path + name for name in ("params", "latency_ms", "quality", "flops", "params")]
        asking = [threading.Thread(target=partial(ask, url, each)) for each in paths]
        for each in asking:
            each.start()
        assert slow.first.wait(30)
        assert [ask(url, path).status for path in ("/healthz", "/login", "/searches")] == [
            200,
            303,
            200,
        ]
        assert ask(url, f"/searches/{id}").status == 200
        slow.go.set()
        for each in asking:
            each.join(30)


def test_the_same_is_made_once_at_a_time(file_store, slow):
    record = file_store.get_search(shown.ended(file_store, 3))
    kept, found = findings.Kept(), []
    made = partial(kept._get, "key", record, lambda: slow.make() or "made")
    asking = [threading.Thread(target=lambda: found.append(made())) for _ in range(4)]
    for each in asking:
        each.start()
    assert slow.first.wait(30)
    slow.go.set()
    for each in asking:
        each.join(30)
    assert (slow.begun, found) == (1, [("made", True)] * 4)


def test_what_failed_is_tried_by_the_next_one(file_store):
    record = file_store.get_search(shown.ended(file_store, 3))
    kept = findings.Kept()
    with pytest.raises(ZeroDivisionError):
        kept._get("key", record, lambda: 1 // 0)
    assert kept._get("key", record, lambda: 1) == (1, True)


def test_a_process_ends_whatever_a_page_computes(path):
    code = """if True:
        import asyncio, sys, threading
        from formwright.service.web.threads import Threads
        async def begin():
            threads, begun = Threads(1, "t"), asyncio.Event()
            loop = asyncio.get_running_loop()
            def forever():
                loop.call_soon_threadsafe(begun.set)
                threading.Event().wait()
            running = asyncio.ensure_future(threads.run(forever))
            waiting = asyncio.ensure_future(threads.run(int))
            await begun.wait()
            threads.close()
            running.cancel()
            done = await asyncio.gather(running, waiting, return_exceptions=True)
            print([type(each).__name__ for each in done])
        asyncio.run(begin())
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "['CancelledError', 'CancelledError']\n", done.stderr
    assert done.returncode == 0


def test_the_end_of_the_page_ends_what_it_has_begun(file_store, monkeypatch):
    claim, _ = shown.running(file_store, 1)
    fingerprint = file_store.get_trial(claim.search.id, 0).fingerprint
    sites, made = [], app.Site
    monkeypatch.setattr(app, "Site", lambda *given: sites.append(made(*given)) or sites[-1])
    with showing(file_store) as url:
        assert ask(url, f"/architectures/{fingerprint}/drawing").status == 200
        drawer = sites[0].drawings._process
        assert drawer.returncode is None
    assert drawer.returncode is not None
    for thread in threading.enumerate():
        if thread.name.startswith("formwright-web-"):
            thread.join(30)
            assert not thread.is_alive()


def test_who_hangs_up_in_a_form_is_not_worth_a_line(file_store, monkeypatch):
    said, keep = [], logging.Handler()
    keep.emit = said.append
    monkeypatch.setattr(app.log, "handlers", [*app.log.handlers, keep])
    with showing(file_store) as url:
        for _ in range(3):
            with socket.create_connection(place(url)) as wire:
                wire.sendall(FORM + b"abc")
        assert ask(url, "/healthz").status == 200
    assert [record.getMessage() for record in said] == []


def test_what_fails_anywhere_has_the_headers(file_store, monkeypatch):
    def fail(*_):
        raise RuntimeError("a secret path")

    monkeypatch.setattr(app, "read_form", fail)
    with showing(file_store) as url:
        answer = ask(url, "/login", "POST", "")
    assert answer.status == 500
    assert "secret" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


def test_a_drawer_that_has_ended_is_begun_again(file_store, monkeypatch):
    claim, _ = shown.running(file_store, 2)
    kinds = [file_store.get_trial(claim.search.id, n).fingerprint for n in range(2)]
    sites, made = [], app.Site
    monkeypatch.setattr(app, "Site", lambda *given: sites.append(made(*given)) or sites[-1])
    with showing(file_store) as url:
        assert ask(url, f"/architectures/{kinds[0]}/drawing").status == 200
        os.kill(sites[0].drawings._process.pid, signal.SIGKILL)
        assert ask(url, f"/architectures/{kinds[1]}/drawing").status == 200


def test_a_stream_that_fails_says_so():
    async def fails():
        yield pb.WatchSearchResponse(last_sequence=1).SerializeToString()
        raise ZeroDivisionError

    async def may():
        pass

    async def told():
        held = contextlib.nullcontext()
        return [each async for each in live.events(fails(), 0, False, may, held)]

    assert b'{"why": "away"}' in asyncio.run(told())[-1]


def test_a_filter_is_whole_by_itself(file_store):
    id = shown.ended(file_store, 8)
    query = "reason=of&filter=state+%3D+FAILED)+OR+(state+%3D+PRUNED"
    with showing(file_store) as url:
        answer = ask(url, f"/searches/{id}?{query}")
    assert answer.status == 400
    assert "<mark>)</mark>" in answer.text


def test_reasons_lead_to_as_many_as_they_count(file_store):
    claim, log = shown.running(file_store)
    errors = ["no", "no", "not now", "took 5 s, no", "took 6 s, no", 'a "b" \\ c']
    for number, error in enumerate(errors):
        started = shown.a_trial(number).started()
        log.append(shown.a_trial(number), started, started.failed(error))
    record = file_store.get_search(claim.search.id)
    found, _ = findings.Kept().failures(file_store, record)
    assert sum(each.count for each in found) == len(errors)
    for each in found:
        those = file_store.list_trials(record.id, 25, filter=asks.for_reason(each.reason)).items
        assert len(those) == each.count, each


def test_a_new_login_ends_the_session_before(file_store):
    text, _ = file_store.access.create("anna", Scope.READ)
    with showing(file_store, tokens="always") as url:
        _, before = log_in(url, text)
        _, after = log_in(url, text, cookie=before)
        found = [ask(url, "/searches", cookie=each).status for each in (before, after)]
    assert found == [303, 200]
