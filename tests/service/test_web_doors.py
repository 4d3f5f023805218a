"""The page: whom it lets in, what it tells a browser, and what a stranger may cost."""

import re
import ssl
import threading
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest

from formwright.service.access import Scope
from formwright.service.certs import authority, issue
from formwright.service.limits import Limits
from formwright.service.store import open_store, tokens
from formwright.service.web import live, site

from . import shown
from .pages import ask, ask_raw, listening, log_in, send_form, showing


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A page that wants tokens: its address, its store, a search of anna's and one of bob's."""
    store = open_store(str(tmp_path_factory.mktemp("doors") / "store.db"))
    mine = shown.running(store.seen_by("anna"), 3, "anna's")[0].search.id
    theirs = shown.running(store.seen_by("bob"), 3, "bob's")[0].search.id
    with showing(store, tokens="always") as url:
        yield url, store, mine, theirs
    store.close()


@pytest.fixture
def token(guarded):
    """Makes tokens of anna."""
    return lambda scope=Scope.READ, **more: guarded[1].access.create("anna", scope, **more)


def bearer(text):
    return {"authorization": f"Bearer {text}"}


def test_strangers_are_sent_to_the_login(guarded):
    url, _, mine, _ = guarded
    for path in ("/searches", f"/searches/{mine}", f"/searches/{mine}/trials/0"):
        answer = ask(url, path)
        assert answer.status == 303
        wanted = "" if path == "/searches" else f"?next={path}"
        assert answer.headers["location"] == f"/login{wanted}"
    for path in (f"/searches/{mine}/live", f"/searches/{mine}/figures/front"):
        answer = ask(url, path)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert ask(url, "/login").status == 200
    assert ask(url, "/healthz").text == "ok\n"
    assert ask(url, "/static/site.css").status == 200


def test_a_token_is_exchanged_for_a_session(guarded, token):
    url, _, mine, _ = guarded
    text, _ = token()
    answer, cookie = log_in(url, text)
    assert (answer.status, answer.headers["location"]) == (303, "/searches")
    flags = {flag.strip().lower() for flag in answer.headers["set-cookie"].split(";")[1:]}
    assert flags == {"httponly", "samesite=strict", "path=/", f"max-age={12 * 3600}"}
    assert text not in str(answer.headers)
    page = ask(url, f"/searches/{mine}", cookie=cookie)
    assert page.status == 200
    assert "Log out" in page.text
    assert text not in page.text
    assert text.rpartition("_")[2] not in cookie

    left = send_form(url, "/logout", "", cookie=cookie)
    assert left.headers["location"] == "/login"
    assert "max-age=0" in left.headers["set-cookie"].lower()
    assert ask(url, f"/searches/{mine}", cookie=cookie).status == 303


def test_a_session_outlives_the_server(guarded, token):
    _, store, mine, _ = guarded
    with showing(store, tokens="always") as url:
        _, cookie = log_in(url, token()[0])
    with showing(store, tokens="always") as url:
        assert ask(url, f"/searches/{mine}", cookie=cookie).status == 200


def test_sessions_and_streams_end_with_their_token(guarded, token, monkeypatch):
    monkeypatch.setattr(live, "BEAT_S", 0.2)
    url, store, mine, _ = guarded
    text, record = token()
    _, cookie = log_in(url, text)
    last = store.get_search(mine).last_sequence
    with listening(url, f"/searches/{mine}/live?after={last}", cookie=cookie) as events:
        next(events)
        store.access.revoke(record.id)
        assert list(events)[-1][2] == {"why": "login"}
    assert ask(url, f"/searches/{mine}", cookie=cookie).status == 303
    assert ask(url, f"/searches/{mine}/live", **bearer(text)).status == 401

    soon = datetime.now(UTC) + timedelta(hours=1)
    text, _ = token(expires=soon)
    assert ask(url, "/searches", **bearer(text)).status == 200
    text, _ = token(expires=datetime.now(UTC) - timedelta(seconds=1))
    assert ask(url, "/searches", **bearer(text)).status == 303
    assert "expired" in log_in(url, text)[0].text


def test_what_is_not_ones_own_is_not_there(guarded, token):
    url, store, mine, theirs = guarded
    as_anna = bearer(token()[0])
    rest = ("", "/trials/0", "/trials/999", "/figures/front", "/live")
    for path in rest:
        hidden = ask(url, f"/searches/{theirs}{path}", **as_anna)
        missing = ask(url, f"/searches/{'0' * 32}{path}", **as_anna)
        assert (hidden.status, hidden.text) == (missing.status, missing.text) == (404, hidden.text)
    listed = ask(url, "/searches", **as_anna).text
    assert mine in listed
    assert theirs not in listed
    fingerprint = store.get_trial(mine, 0).fingerprint  # both have tried it
    where = ask(url, f"/architectures/{fingerprint}", **as_anna).text
    assert mine in where
    assert theirs not in where
    admin = bearer(store.access.create("root", Scope.ADMIN)[0])
    assert ask(url, f"/searches/{theirs}", **admin).status == 200


WRONG = ["", "fw_", "x" * 200, "fw_00112233aabb_" + "x" * 43, "%00%00", "fw_%C3%BC"]


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_wrong_tokens_say_nothing(guarded, text):
    answer, cookie = log_in(guarded[0], text)
    assert (answer.status, cookie) == (403, "")
    assert "the token is not valid" in answer.text
    assert len(text) < 9 or text not in answer.text
    assert ask(guarded[0], "/searches", cookie=f"formwright={text}").status == 303


def test_who_tries_too_often_waits(file_store):
    """As with gRPC, whose gate it is: whoever was let in is kept out by no wrong tokens."""
    known, new = (file_store.access.create("anna", Scope.READ)[0] for _ in range(2))
    wrong = new[:-1] + ("A" if new[-1] != "A" else "B")
    with showing(file_store, failures=Limits(2, clock=lambda: 0.0), tokens="always") as url:
        cookie = log_in(url, known)[1]
        found = [log_in(url, wrong)[0].status for _ in range(2)]
        found += [ask(url, "/searches", **bearer(wrong)).status for _ in range(2)]
        assert found == [403, 403, 303, 303]
        late = log_in(url, new)[0]
        assert (late.status, late.headers["retry-after"]) == (429, "1")
        assert "too many wrong tokens" in late.text
        assert ask(url, "/searches", **bearer(new)).status == 429
        assert ask(url, "/searches", cookie="formwright=" + "x" * 43).status == 429
        assert ask(url, "/searches", cookie=cookie).status == 200
        assert ask(url, "/searches", **bearer(known)).status == 200


def test_one_token_has_so_many_sessions(file_store, monkeypatch):
    monkeypatch.setattr(tokens, "SESSIONS", 3)
    text, other = (file_store.access.create("anna", Scope.READ)[0] for _ in range(2))
    with showing(file_store, tokens="always") as url:
        kept = log_in(url, other)[1]
        cookies = [log_in(url, text)[1] for _ in range(5)]
    with showing(file_store, tokens="always") as url:  # which remembers none
        found = [ask(url, "/searches", cookie=each).status for each in [kept, *cookies]]
    assert found == [200, 303, 303, 200, 200, 200]


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
        {"sec_fetch_site": None, "origin": "https://elsewhere.example"},
        {"sec_fetch_site": None, "origin": "null"},
        {"sec_fetch_site": None},
    ],
    ids=str,
)
def test_forms_of_other_sites_are_refused(guarded, token, headers):
    url, text = guarded[0], token()[0]
    kind = {"content_type": "application/x-www-form-urlencoded"}
    sent = {name: value for name, value in (kind | headers).items() if value}
    answer = ask(url, "/login", "POST", f"token={text}", **sent)
    assert answer.status == 403
    assert "set-cookie" not in answer.headers


def test_an_old_browser_may_log_in(guarded, token):
    url = guarded[0]
    kind = {"content_type": "application/x-www-form-urlencoded", "origin": url}
    assert ask(url, "/login", "POST", f"token={token()[0]}", **kind).status == 303
    assert ask(url, "/login").headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize(
    "wanted", ["https://elsewhere.example", "//elsewhere.example", "/\\elsewhere", "/login", "x"]
)
def test_a_login_leads_to_our_own_pages(guarded, token, wanted):
    answer = send_form(guarded[0], "/login", f"token={token()[0]}&next={wanted}")
    assert answer.headers["location"] == "/searches"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 303), ("127.0.0.1:9", 303), ("[::1]:80", 303), ("LOCALHOST:1", 303),
        ("evil.example", 421), ("localhost.evil.example", 421), ("127.0.0.1.evil.example", 421),
        ("", 400), ("a b", 400), ("me@localhost", 400), ("localhost/x", 400), ("[::1", 400),
    ],
)  # fmt: skip
def test_only_names_of_this_machine_are_answered(guarded, host, status):
    data = f"GET /searches HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    assert ask_raw(guarded[0], data.encode()).startswith(f"HTTP/1.1 {status} ")


@pytest.mark.parametrize("hosts", ["", "Host: localhost\r\nHost: evil.example\r\n"])
def test_there_is_one_host(guarded, hosts):
    data = f"GET /searches HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n"
    assert ask_raw(guarded[0], data.encode()).startswith("HTTP/1.1 400 ")


def test_every_answer_keeps_a_browser_at_home(guarded, token):
    url, _, mine, _ = guarded
    as_anna = bearer(token()[0])
    for path in (
        "/searches",
        f"/searches/{mine}",
        "/nosuch",
        "/login",
        "/healthz",
        "/static/live.js",
    ):
        headers = ask(url, path, **as_anna).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert "unsafe" not in policy["script-src"]
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == ("no-cache" if "static" in path else "no-store")
        assert "strict-transport-security" not in headers
        assert "server" not in headers
        if path != "/login":
            assert headers["referrer-policy"] == "no-referrer"


def test_what_is_too_long_is_refused(guarded):
    url = guarded[0]
    head = "GET /searches HTTP/1.1\r\nHost: localhost\r\n"
    refused = ("HTTP/1.1 400", "HTTP/1.1 431")  # by the pieces in which it comes
    assert ask_raw(url, f"{head}X: {'x' * 40_000}\r\n\r\n".encode())[:12] in refused
    assert ask_raw(url, f"GET /{'a' * 40_000} HTTP/1.1\r\n".encode())[:12] in refused
    assert send_form(url, "/login", "token=" + "x" * 5000).status == 413
    post = "POST /login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    for length in ("Transfer-Encoding: chunked", "Content-Length: 99999999999999"):
        assert " 413 " in ask_raw(url, f"{post}{length}\r\n\r\n".encode())[:16]
    assert " 400 " in ask_raw(url, b"\x16\x03\x01 this is no HTTP\r\n\r\n")[:16]


def test_who_says_nothing_is_hung_up_on(file_store, monkeypatch):
    monkeypatch.setattr(site, "HEAD_S", 0.2)
    with showing(file_store) as url:
        assert ask_raw(url, b"GET /searches HT") == ""
        assert ask_raw(url, b"") == ""


def test_tokens_are_written_nowhere(guarded, token, capfd):
    url = guarded[0]
    text, _ = token()
    secret = text.rpartition("_")[2]
    log_in(url, text)
    ask(url, f"/searches?filter={text}", **bearer(text))
    ask(url, "/nosuch", **bearer(text))
    log_in(url, f"{text}x")
    said = capfd.readouterr()
    assert secret not in said.out + said.err


def test_over_tls(tmp_path, file_store):
    by, _ = authority(tmp_path)
    certificate, key = issue(tmp_path, by, "server", "server", ["localhost", "127.0.0.1"], 2)
    text, _ = file_store.access.create("anna", Scope.READ)
    trust = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    files = {"certificate": str(certificate), "key": str(key)}
    with showing(file_store, tokens="always", **files) as url:
        assert url.startswith("https://")
        asked = urllib.request.Request(
            f"{url}/searches", headers={"Authorization": f"Bearer {text}"}
        )
        with urllib.request.urlopen(asked, context=trust) as answer:
            assert answer.headers["strict-transport-security"].startswith("max-age=")
        form = urllib.request.Request(
            f"{url}/login", f"token={text}".encode(), {"Sec-Fetch-Site": "same-origin"}
        )
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trust), Stay)
        cookie = opener.open(form).headers["set-cookie"]
    assert cookie.startswith("__Host-formwright=")
    assert re.search("; secure(;|$)", cookie, re.IGNORECASE)


class Stay(urllib.request.HTTPRedirectHandler):
    """Shows a redirect itself."""

    def http_error_303(self, request, fp, code, message, headers):
        return fp


def test_many_listen_and_the_server_still_ends(file_store, monkeypatch):
    monkeypatch.setattr(site, "DRAIN_S", 60)  # all that listen hear of its end, however slow
    claim, log = shown.running(file_store, 1)
    last = file_store.get_search(claim.search.id).last_sequence
    ends, ready = [], threading.Barrier(21)

    def listen(url):
        with listening(url, f"/searches/{claim.search.id}/live?after={last}") as events:
            next(events)
            ready.wait(30)
            ends.append([name for name, _, _ in events][-1])

    with showing(file_store) as url:
        threads = [threading.Thread(target=listen, args=(url,)) for _ in range(20)]
        for thread in threads:
            thread.start()
        ready.wait(30)
        shown.write(log, 1, 2)
        assert ask(url, "/healthz").text == "ok\n"
    for thread in threads:
        thread.join(90)
    assert ends == ["end"] * 20


def test_numbers_are_for_whoever_has_a_token(guarded, token):
    url, *_ = guarded

    assert ask(url, "/metrics").status == 401
    assert ask(url, "/metrics", **bearer("fw_000000000000_" + "x" * 43)).status == 401
    answer = ask(url, "/metrics", **bearer(token()[0]))
    assert (answer.status, answer.text) == (200, "formwright_up 1\n")
    assert answer.headers["content-type"] == "text/plain; version=1.0.0"


def test_whose_a_search_is_is_shown_to_who_sees_several_peoples(guarded, token):
    url, store, *_ = guarded
    root, _ = store.access.create("root", Scope.ADMIN)

    everybodys = ask(url, "/searches", **bearer(root)).text
    assert "<td>anna</td>" in everybodys
    assert "<td>bob</td>" in everybodys
    assert 'scope="col">owner' not in ask(url, "/searches", **bearer(token()[0])).text
