"""The page: what it shows, asked for over HTTP. Who may see it: `test_web_doors.py`."""

import re
import socket
import subprocess
import sys
from dataclasses import replace
from html import unescape

import pytest

from formwright.search import SearchSpec
from formwright.search.testing import a_trial as undrawable
from formwright.service.errors import SetupError
from formwright.service.records import SearchState
from formwright.service.settings import Settings
from formwright.service.store import open_store
from formwright.service.web import findings
from formwright.service.web.files import FILES
from formwright.service.web.site import WebSite, read_place

from . import shown
from .pages import ask, ask_raw, place, showing

EVIL = '<script>alert("it")</script><img src=x onerror=alert(1)>'
NOBODY = "0" * 32


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A store with a search that runs and one that has ended, and a page of it."""
    store = open_store(str(tmp_path_factory.mktemp("web") / "store.db"))
    ended = shown.ended(store, 30, "ended")
    claim, log = shown.running(store, 14, "running")
    with showing(store) as url:
        yield url, store, claim.search.id, ended, log
    store.close()


def test_every_page_is_there(kept):
    url, store, id, _, _ = kept
    fingerprint = store.get_trial(id, 0).fingerprint
    paths = [
        *("/searches", f"/searches/{id}", f"/searches/{id}/trials/0", f"/searches/{id}/trials/4"),
        *(f"/architectures/{fingerprint}", "/healthz", *FILES),
        f"/searches/{id}/figures/front?x=params&y=quality",
        f"/searches/{id}/figures/front?x=params&y=params",
        f"/searches/{id}/figures/growth",
    ]
    assert {path: ask(url, path).status for path in paths} == dict.fromkeys(paths, 200)
    assert ask(url, "/").headers["location"] == "/searches"
    assert ask(url, "/login").headers["location"] == "/searches"  # nobody is asked for a token


def test_a_search_is_shown_with_its_front_and_its_failures(kept):
    url, store, id, _, _ = kept
    text = ask(url, f"/searches/{id}").text
    numbers = [place.number for place in store.kept_front(id)[0]]
    table = text[text.index('id="front-part"') : text.index('id="failures"')]
    assert [int(n) for n in re.findall(r'/trials/(\d+)">', table)] == numbers
    assert "loss is not finite after" in text
    assert 'data-live="' in text
    assert 'value="14"' in text


def test_one_that_has_ended_is_not_followed(kept):
    assert 'data-live="' not in ask(kept[0], f"/searches/{kept[3]}").text


def test_lists_are_filtered_and_turned_over(kept):
    url, store, id, ended, _ = kept
    text = ask(url, "/searches?filter=state+%3D+RUNNING").text
    assert id in text
    assert ended not in text
    first = ask(url, f"/searches/{ended}?state=SUCCEEDED").text
    more = re.search(r'href="([^"]*page=[^"]*)"[^>]*>Next page', first)
    assert more is None  # 25 or fewer have
    whole = ask(url, f"/searches/{ended}").text
    following = unescape(re.search(r'href="([^"#]*page=[^"#]*)[^>]*>Next page', whole)[1])
    rest = ask(url, following).text
    numbers = re.findall(r'/trials/(\d+)">\1</a></th><td>', rest)
    assert numbers == ["25", "26", "27", "28", "29"]
    best = ask(url, f"/searches/{ended}?order=metrics.quality+desc").text
    numbers = re.findall(r'/trials/(\d+)">\1</a></th><td>', best)
    wanted = store.list_trials(ended, 25, order_by="metrics.quality desc").items
    assert numbers == [str(each.number) for each in wanted]
    reason = ask(url, f"/searches/{ended}?state=FAILED&reason=out+of+memory").text
    assert re.findall(r'/trials/(\d+)">\1</a></th><td>', reason) == ["7", "20"]


@pytest.mark.parametrize(
    ("filter", "said", "marked"),
    [
        ("state %3D RUNING", "at character 1: state is", "state = RUNING"),
        ("space %3D a AND nosuch %3D 1", "unknown field", "nosuch = 1"),
        ("state %3D RUNNING )", "expected AND, OR or the end", ")"),
        ("(", "expected a field", " "),
    ],
)
def test_what_is_wrong_with_a_filter_is_said_with_its_place(kept, filter, said, marked):
    answer = ask(kept[0], f"/searches?filter={filter.replace(' ', '+')}")
    assert answer.status == 400
    assert said in answer.text
    assert f"<mark>{marked}</mark>" in answer.text


def test_a_trial_tells_what_the_compiler_declined(kept):
    url, _, id, _, _ = kept
    text = ask(url, f"/searches/{id}/trials/0").text
    for wanted in ("norm_equivalence", "mean_read", "another operator reads the mean", "head"):
        assert wanted in text
    assert 'rel="next"' in text
    assert "machine.fingerprint" in text
    assert "CUDA out of memory" in ask(url, f"/searches/{id}/trials/7").text


def test_nothing_of_another_hand_becomes_markup(store):
    trial = shown.a_trial(0).started()
    search = store.create_search(shown.SPEC, "", f"name {EVIL}")
    claim = store.claim("me", 600)
    log = store.log(claim)
    details = {EVIL: EVIL, "report": {"passes": [{"name": EVIL, "declined": [{"reason": EVIL}]}]}}
    bad = replace(shown.measured(0), details=details)
    log.append(shown.a_trial(0), trial, trial.succeeded(bad))
    other = shown.a_trial(1).started()
    log.append(shown.a_trial(1), other, other.failed(f"it said {EVIL}"))
    store.finish(claim, SearchState.FAILED, f"because {EVIL}")
    where = f"/searches/{search.id}"
    paths = ["/searches", where, f"{where}/trials/0", f"{where}/trials/1", f"{where}?filter={{}}"]
    with showing(store) as url:
        for path in paths:
            text = ask(url, path.format("%3Cscript%3Ealert(1)")).text
            assert not re.search(r"<script>|<img src=x", text), path
            assert "&lt;script&gt;" in text, path


def test_what_details_are_not_of_the_form_is_shown_as_it_is(file_store):
    details = {"report": [1], "seconds": "long", "rungs": {"a": 1}, "deep": {"a": {"b": {"c": []}}}}
    claim, log = shown.running(file_store)
    trial = shown.a_trial(0).started()
    log.append(shown.a_trial(0), trial, trial.failed("no").charged("train", 2.0))
    number = shown.a_trial(1).started()
    measured = replace(shown.measured(1), details={"report": {"passes": [1, {"declined": 3}]}})
    log.append(shown.a_trial(1), number, number.succeeded(measured))
    odd = shown.a_trial(2).started()
    log.append(shown.a_trial(2), odd, replace(odd.failed("odd"), details=details))
    with showing(file_store) as url:
        found = [ask(url, f"/searches/{claim.search.id}/trials/{n}") for n in range(3)]
    assert [answer.status for answer in found] == [200, 200, 200]
    assert "deep.a.b" in found[2].text


ODD = [
    *("/searches/..%2f..%2fetc%2fpasswd", "/searches/%00", "/searches/a%00b", "//searches"),
    *("/static/../app.py", "/static/%2e%2e/app.py", "/static/", "/static", "/static/app.py"),
    *("/searches/", "/searches/x/trials/", "/searches/x/trials/-1", "/searches/x/trials/1e9"),
    *(f"/searches/{NOBODY}", f"/searches/{NOBODY}/trials/0", f"/searches/{NOBODY}/live"),
    *(f"/searches/{NOBODY}/figures/front", "/architectures/a1:zz", "/searches/%ff%fe"),
    *(f"/architectures/a1:{'0' * 64}", f"/architectures/a1:{'0' * 64}/drawing"),
    *("/searches?page=AAAA", "/searches?order=nosuch", "/searches?filter=%00", "/%2e%2e/%2e%2e/"),
    *(f"/searches?filter={'a' * 5000}", "/searches/ü".encode().decode("latin-1"), "/login/x"),
]


@pytest.mark.parametrize("path", ODD, ids=range(len(ODD)))
def test_odd_addresses_are_refused(kept, path):
    data = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1")
    found = ask_raw(kept[0], data)
    assert re.match(r"HTTP/1.1 4\d\d ", found), found[:200]
    assert "Traceback" not in found
    assert "root:" not in found


def test_odd_questions_about_a_search_are_refused(kept):
    url, _, id, _, _ = kept
    queries = ["x=nosuch", "machine=nosuch", "state=NOSUCH", "page=zz", "filter=(", "reason=%00"]
    found = {query: ask(url, f"/searches/{id}?{query}").status for query in queries}
    assert found == dict.fromkeys(queries, 400)
    assert ask(url, f"/searches/{id}?reason=%22%5C").status == 200
    assert ask(url, f"/searches/{id}/figures/nosuch").status == 404
    assert ask(url, f"/searches/{id}/trials/999999999").status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_pages_are_for_looking(kept, method):
    url, _, id, _, _ = kept
    assert {ask(url, path, method).status for path in ("/searches", f"/searches/{id}")} == {405}
    assert ask(url, "/searches", "HEAD").status == 200
    assert ask(url, f"/searches/{id}/live", "HEAD").status == 200


def test_files_are_sent_once(kept):
    first = ask(kept[0], "/static/plotly.min.js", accept_encoding="gzip")
    assert first.headers["content-encoding"] == "gzip"
    again = ask(kept[0], "/static/plotly.min.js", if_none_match=first.headers["etag"])
    assert (again.status, again.text) == (304, "")


def test_architectures_are_drawn_beside(file_store):
    claim, log = shown.running(file_store, 2)
    log.append(replace(undrawable(), number=2))
    kinds = [file_store.get_trial(claim.search.id, n).fingerprint for n in range(3)]
    paths = [f"/architectures/{kind}/drawing" for kind in kinds]
    with showing(file_store) as url:
        with socket.create_connection(place(url)) as wire:  # somebody who does not wait for it
            wire.sendall(f"GET {paths[0]} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        drawn = [ask(url, path) for path in paths]
    assert [answer.status for answer in drawn] == [200, 200, 422]
    assert drawn[0].headers["content-type"] == "image/svg+xml"
    assert drawn[0].text.startswith("<svg")
    assert "attention has the settings" in drawn[2].text


def test_a_page_that_fails_says_an_id_and_nothing_else(kept, monkeypatch):
    def fail(*_):
        raise RuntimeError("a secret path")

    monkeypatch.setattr(findings, "front_of", fail)
    answer = ask(kept[0], f"/searches/{kept[2]}")
    assert answer.status == 500
    assert "secret" not in answer.text
    assert re.search("under [0-9a-f]{12}", answer.text)


@pytest.mark.parametrize("given", ["", "x", "70000", "a:b:1", "localhost:", "::1:80"])
def test_places_that_cannot_be(given):
    with pytest.raises(SetupError, match="--web"):
        read_place(given, "127.0.0.1")


def test_a_port_that_is_taken_is_said(kept, file_store):
    with (
        pytest.raises(SetupError, match="try another --web"),
        showing(file_store, place(kept[0])[1]),
    ):
        pass


@pytest.mark.parametrize("web", ["0.0.0.0:0", "[::]:0"])
def test_other_machines_need_tls(web):
    with pytest.raises(SetupError, match="--certificate"):
        WebSite(Settings(web=web))


def test_no_page_loads_torch(path):
    code = """if True:
        import sys
        from formwright.service.access import EVERYBODY
        from formwright.service.store import open_store
        from formwright.service.web import app, pages, render, site
        from formwright.service.web.findings import Kept
        store = open_store(sys.argv[1])
        search = store.list_searches(1).items[0]
        at = {"id": search.id, "number": "0", "figure": "front"}
        asked = pages.Asked(store, EVERYBODY, at, {}, False, Kept())
        for page in (pages.searches, pages.search, pages.trial):
            made = page(asked)
            render.render(made.template, {"asked": asked, **made.values})
        pages.figure(asked)
        print(*sys.modules)
    """
    store = open_store(str(path))
    shown.ended(store, 3)
    store.close()
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "ray", "optuna"}


def test_a_search_that_has_nothing_yet(file_store):
    made = file_store.create_search(SearchSpec(), "")
    with showing(file_store) as url:
        assert "No trial has succeeded yet" in ask(url, f"/searches/{made.id}").text
        assert ask(url, f"/searches/{made.id}/figures/front").status == 404
