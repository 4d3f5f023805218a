"""The page while a search goes on: what is told, to whom, how often; and the whole server."""

import subprocess
import sys

import pytest

from formwright.service.records import Action, SearchState
from formwright.service.store import open_store
from formwright.service.web import app, findings, site

from . import shown
from .pages import ask, listening, showing


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A store with a search that runs, and a page of it."""
    store = open_store(str(tmp_path_factory.mktemp("live") / "store.db"))
    claim, log = shown.running(store, 14, "running")
    with showing(store) as url:
        yield url, store, claim.search.id, log
    store.close()


def test_what_happens_is_told_and_not_too_often(kept):
    url, store, id, log = kept
    last = store.get_search(id).last_sequence
    with listening(url, f"/searches/{id}/live?after={last}") as events:
        assert next(events) == ("beat", last, {})
        shown.write(log, 14, 3)
        told = []
        while not told or told[-1][1] < last + 9:
            told.append(next(events))
    assert len([name for name, _, _ in told if name == "news"]) < 9  # three events a trial
    wanted = {place.number for place in store.kept_front(id)[0]} & {14, 15, 16}
    assert wanted <= {number for _, _, data in told for number in data.get("joined", ())}


@pytest.mark.parametrize("after", ["0", "999999", "-1", "nosuch", ""])
def test_whoever_begins_elsewhere_reads_all_anew(kept, after):
    url, _, id, _ = kept
    with listening(url, f"/searches/{id}/live?after={after}") as events:
        names = [next(events)[0] for _ in range(2)]
    assert names == ["beat", "news"]


def test_streams_end_with_their_search_and_with_the_server(file_store, monkeypatch):
    monkeypatch.setattr(site, "DRAIN_S", 60)
    claim, _ = shown.running(file_store, 2)
    last = file_store.get_search(claim.search.id).last_sequence
    where = f"/searches/{claim.search.id}/live?after={last}"
    with showing(file_store) as url:
        with listening(url, where) as events:
            next(events)
            file_store.finish(claim, SearchState.SUCCEEDED)
            assert list(events)[-1][2] == {"why": "done"}
        other = file_store.create_search(shown.SPEC, "")
        with listening(url, f"/searches/{other.id}/live?after=1") as events:
            next(events)
            file_store.act(other.id, Action.CANCEL)
            file_store.delete_search(other.id)
            assert list(events)[-1][2]["why"] in ("done", "gone")
        last = file_store.create_search(shown.SPEC, "")
        connection = listening(url, f"/searches/{last.id}/live?after=1")
        events = connection.__enter__()
        next(events)
    assert list(events)[-1][2] == {"why": "away"}
    connection.__exit__(None, None, None)


def test_what_takes_long_is_not_made_for_every_event(file_store):
    claim, log = shown.running(file_store, 3)
    now, id = [0.0], claim.search.id

    def slow():
        now[0] += 1.0  # between the beginning and the end of what is made
        return now[0]

    kept = findings.Kept(slow)

    def look():
        record = file_store.get_search(id)
        front = findings.front_of(file_store, record)
        return kept.figure(file_store, record, front, "front", "params", "quality")

    first, fresh = look()
    assert fresh
    shown.write(log, 3, 1)
    assert look() == (first, False)
    now[0] += findings.PATIENCE
    after, fresh = look()
    assert (fresh, after == first) == (True, False)


def test_one_client_listens_to_so_many_and_no_more(kept, monkeypatch):
    url, store, id, _ = kept
    last = store.get_search(id).last_sequence
    where = f"/searches/{id}/live?after={last}"
    opened = [listening(url, where) for _ in range(app.STREAMS)]
    for each in opened:
        next(each.__enter__())
    with listening(url, where) as events:
        assert [(name, data) for name, _, data in events] == [("end", {"why": "away"})]
    for each in opened:
        each.__exit__(None, None, None)


def test_a_server_shows_a_page(path):
    command = [sys.executable, "-P", "-m", "formwright", "serve", "--with-parent", "--workers=0"]
    command += [f"--database={path}", "--port=0", "--web=0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as server:
        try:
            assert server.stdout.readline().startswith("formwright serves on 127.0.0.1:")
            url = server.stdout.readline().removeprefix("formwright shows ").strip()
            assert ask(url, "/healthz").text == "ok\n"
            assert "There is no search yet" in ask(url, "/searches").text
        finally:
            server.stdin.close()
        assert server.wait(60) == 0
