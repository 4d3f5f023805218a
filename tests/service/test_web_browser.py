"""The page in a real browser: it follows a search, recovers, and keeps nobody out."""

import re
from urllib.parse import urlsplit

import pytest

from formwright.service.access import Scope
from formwright.service.records import SearchState
from formwright.service.store import open_store
from formwright.service.testing_unit import free_port
from formwright.service.web import app, findings

from . import shown
from .pages import ask, place, showing


@pytest.fixture
def page(file_store, monkeypatch):
    """The address of a page, its store, and a search that runs with its log. What is shown is made
    anew whenever there is news, however long it takes."""
    monkeypatch.setattr(findings, "PATIENCE", 0.0)
    claim, log = shown.running(file_store, 9, "watched")
    with showing(file_store) as url:
        yield url, file_store, claim, log


def well(chromium, url):
    """Nothing was complained about, and nobody else was asked."""
    assert chromium.complaints() == []
    home = urlsplit(url).netloc
    assert {urlsplit(address).netloc for address in chromium.asked()} <= {home}


def front(store, id):
    return ",".join(str(each.number) for each in store.kept_front(id)[0])


TYPE = """
const place = document.querySelector(arguments[0]);
place.value = arguments[1];
place.form.requestSubmit();
"""
LOOKED_AT = """
const e = document.activeElement;
const visible = getComputedStyle(e).outlineStyle !== "none" && e.getClientRects().length > 0;
return {visible, found: e.matches(arguments[0]), is: e.outerHTML.slice(0, 100)};
"""
FRONT = "[...document.querySelectorAll('#front-part tbody th')].map(e => e.textContent)"
DRAWN = "document.querySelectorAll('.plot .main-svg').length >= 2"
STATE = "document.getElementById('connection').dataset.state"
# what a browser says of a server that is not there, or ends in the middle of an answer
GONE = (
    *("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_CONNECTION_CLOSED"),
    *("ERR_INCOMPLETE_CHUNKED", "ERR_EMPTY_RESPONSE"),
)


def test_a_front_grows_before_ones_eyes(chromium, page):
    url, store, claim, log = page
    id = claim.search.id
    chromium.open(f"{url}/searches/{id}")
    chromium.wait(DRAWN)
    before = front(store, id)
    assert chromium.wait(f"{FRONT}.join()") == before
    chromium.driver.execute_script("document.querySelector('#front-part a').focus()")
    shown.write(log, 9, 9)
    wanted = front(store, id)
    assert wanted != before
    chromium.wait(f"{FRONT}.join() === arguments[0]", wanted)
    chromium.wait("/joined the front/.test(document.getElementById('spoken').textContent)")
    # figures are drawn again, with every trial that has succeeded
    dots = "document.querySelector('.plot').data.filter(t => t.mode === 'markers')"
    points = f"{dots}.reduce((n, t) => n + t.x.length, 0)"
    chromium.wait(f"{points} === arguments[0]", store.get_search(id).counts["SUCCEEDED"])
    assert chromium.wait("document.activeElement.tagName") == "A"  # the keyboard is where it was
    assert chromium.wait("document.querySelector('progress').value") == 18

    store.finish(claim, SearchState.SUCCEEDED)
    chromium.wait("document.querySelector('#state .succeeded') !== null")
    chromium.wait("document.getElementById('connection').textContent === 'up to date'")
    well(chromium, url)


def test_axes_are_chosen(chromium, page):
    url, _, claim, _ = page
    chromium.open(f"{url}/searches/{claim.search.id}")
    chromium.wait(DRAWN)
    chromium.driver.execute_script(
        "const s = document.querySelector('select[name=x]'); s.value = 'params';"
        "s.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    chromium.wait("location.search.includes('x=params')")
    chromium.wait("/Params/.test(document.querySelector('.plot .xtitle')?.textContent)")
    well(chromium, url)


def test_a_server_that_comes_back_is_followed_again(chromium, file_store):
    claim, log = shown.running(file_store, 3, "watched")
    id = claim.search.id
    with showing(file_store, free_port()) as url:  # which nobody takes meanwhile
        chromium.open(f"{url}/searches/{id}")
        chromium.wait(f"{STATE} === 'well'")
    chromium.wait(f"{STATE} === 'lost'")
    assert chromium.wait("document.getElementById('connection').textContent.includes('lost')")
    assert chromium.wait("document.getElementById('connection').ariaLive || 'polite'") == "polite"
    shown.write(log, 3, 6)  # while nobody could see it
    with showing(file_store, place(url)[1]):
        chromium.wait(f"{STATE} === 'well'")
        chromium.wait(f"{FRONT}.join() === arguments[0]", front(file_store, id))
        shown.write(log, 9, 6)  # and it goes on
        chromium.wait(f"{FRONT}.join() === arguments[0]", front(file_store, id))
        odd = [said for said in chromium.complaints() if not any(each in said for each in GONE)]
        assert odd == []
        chromium.open("about:blank")


def test_a_filter_that_is_wrong_does_not_lose_the_connection(chromium, page):
    url, _, claim, log = page
    chromium.open(f"{url}/searches/{claim.search.id}?filter=state+%3D")
    chromium.wait(f"{STATE} === 'well'")
    shown.write(log, 9, 3)
    chromium.wait("document.querySelector('progress').value === 12")
    assert chromium.wait(STATE) == "well"
    odd = [said for said in chromium.complaints() if "400" not in said]
    assert odd == []


def test_an_old_figure_is_looked_at_again_after_the_end(chromium, file_store, monkeypatch):
    claim, log = shown.running(file_store, 9)
    id, now, made = claim.search.id, [0.0], app.Site

    def slow():
        now[0] += 0.001  # between the beginning and the end of what is made
        return now[0]

    monkeypatch.setattr(app, "Site", lambda *given: made(*given, kept=findings.Kept(slow)))
    monkeypatch.setattr(findings, "PATIENCE", 1e6)
    with showing(file_store) as url:
        figures = [f"/searches/{id}/figures/{kind}" for kind in ("front", "growth")]
        assert [ask(url, path).status for path in figures] == [200, 200]
        shown.write(log, 9, 6)
        file_store.finish(claim, SearchState.SUCCEEDED)
        chromium.open(f"{url}/searches/{id}")
        chromium.wait(DRAWN)
        dots = "document.querySelector('.plot').data.filter(t => t.mode === 'markers')"
        points = f"{dots}.reduce((n, t) => n + t.x.length, 0)"
        wanted = file_store.get_search(id).counts["SUCCEEDED"]
        assert chromium.wait(points) < wanted
        now[0] += 1e6
        chromium.wait(f"{points} === arguments[0]", wanted)
        well(chromium, url)
        chromium.open("about:blank")


TABS = """
const real = window.EventSource;
window.open_ones = new Set();
window.EventSource = class extends real {
  constructor(...given) { super(...given); open_ones.add(this); }
  close() { super.close(); open_ones.delete(this); }
};
window.seen = "visible";
Object.defineProperty(document, "visibilityState", {get: () => window.seen});
window.flick = (to) => { window.seen = to; document.dispatchEvent(new Event("visibilitychange")); };
"""


def test_who_flicks_between_tabs_holds_one_stream(chromium, page):
    url, _, claim, _ = page
    driver = chromium.driver
    made = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": TABS})
    try:
        chromium.open(f"{url}/searches/{claim.search.id}")
        chromium.wait(f"{STATE} === 'well' && open_ones.size === 1")
        driver.execute_script("for (const to of 'hvhvhv') flick(to === 'h' ? 'hidden' : 'visible')")
        chromium.wait("open_ones.size > 0")
        # all that was under way has come to its end: as many looks were answered as were begun
        looks = "performance.getEntriesByName(location.href, 'resource').length"
        chromium.wait(f"{looks} >= 3")
        assert chromium.wait("open_ones.size") == 1
        chromium.open("about:blank")
    finally:
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", made)


def test_someone_logs_in_filters_and_logs_out(chromium, file_store):
    token, record = file_store.access.create("anna", Scope.READ)
    mine = file_store.seen_by("anna")
    shown.ended(mine, 4, "one that has ended")
    shown.running(mine, 2, "one that runs")
    with showing(file_store, tokens="always") as url:
        chromium.open(f"{url}/searches?filter=state%20%3D%20RUNNING")
        chromium.wait("location.pathname === '/login'")
        assert chromium.barriers() == []
        well(chromium, url)
        chromium.driver.execute_script(TYPE, "#token", "wrong")
        chromium.wait("document.querySelector('[role=alert]')?.textContent.includes('not valid')")
        assert chromium.barriers() == []
        chromium.complaints()  # of the 403
        chromium.driver.execute_script(TYPE, "#token", token)
        chromium.wait("location.pathname === '/searches'")
        assert token not in chromium.driver.current_url
        assert token not in chromium.driver.page_source
        assert chromium.driver.execute_script("return document.cookie") == ""  # scripts see none
        names = "[...document.querySelectorAll('tbody th a')].map(a => a.textContent)"
        assert chromium.wait(names) == ["one that runs"]
        chromium.driver.execute_script(TYPE, "[name=filter]", "state = SUCCEEDED")
        chromium.wait(f"{names}[0] === 'one that has ended'")
        chromium.driver.execute_script(TYPE, "[name=filter]", "state = NOSUCH")
        assert chromium.wait("document.querySelector('mark')?.textContent") == "state = NOSUCH"
        assert chromium.barriers() == []
        chromium.complaints()  # of the 400
        chromium.driver.execute_script("document.querySelector('.out').requestSubmit()")
        chromium.wait("location.pathname === '/login'")
        well(chromium, url)

        chromium.driver.execute_script(TYPE, "#token", token)
        chromium.wait("location.pathname === '/searches'")
        chromium.driver.execute_script("document.querySelector('tbody th a').click()")
        chromium.wait(f"{STATE} === 'well'")
        file_store.access.revoke(record.id)  # the stream ends, and the page is no more
        chromium.wait("location.pathname === '/login'")
        chromium.open("about:blank")


PAGES = ("/searches", "/searches/{id}", "/searches/{id}/trials/{n}", "/architectures/{fingerprint}")


@pytest.mark.parametrize(("at", "n"), [(0, 0), (1, 0), (2, 0), (2, 4), (3, 0)])
def test_pages_keep_nobody_out(chromium, kept, at, n):
    url, id, fingerprint = kept
    chromium.open(url + PAGES[at].format(id=id, n=n, fingerprint=fingerprint))
    if at == 1:
        chromium.wait(DRAWN)
    chromium.wait("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert chromium.barriers() == []
    chromium.prefer("dark")
    dark = "getComputedStyle(document.body).backgroundColor"
    assert chromium.wait(dark) != "rgb(245, 246, 248)"
    assert chromium.barriers() == []
    chromium.driver.set_window_size(360, 800)
    chromium.wait("innerWidth === 360")
    chromium.wait("document.documentElement.scrollWidth <= 360")  # figures take a moment
    well(chromium, url)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    store = open_store(str(tmp_path_factory.mktemp("browser") / "store.db"))
    claim, _ = shown.running(store, 14, "watched")
    with showing(store) as url:
        yield url, claim.search.id, store.get_trial(claim.search.id, 0).fingerprint
    store.close()


def press(chromium, key, times=1):
    from selenium.webdriver import ActionChains

    ActionChains(chromium.driver).send_keys(*[key] * times).perform()


def walk_to(chromium, wanted):
    """Tabs until the element that has the keyboard matches; it must be seen that it does."""
    from selenium.webdriver.common.keys import Keys

    for _ in range(60):
        press(chromium, Keys.TAB)
        seen = chromium.driver.execute_script(LOOKED_AT, wanted)
        assert seen["visible"], f"the focus is not to be seen: {seen}"
        if seen["found"]:
            return
    raise AssertionError(f"no way to {wanted} with the keyboard")


def test_a_trial_is_reached_with_the_keyboard_alone(chromium, kept):
    from selenium.webdriver.common.keys import Keys

    url, id, _ = kept
    chromium.open(f"{url}/searches")
    chromium.wait(f"{STATE} === 'well'")
    press(chromium, Keys.TAB)
    assert chromium.driver.execute_script("return document.activeElement.className") == "skip"
    press(chromium, Keys.ENTER)
    walk_to(chromium, f"a[href='/searches/{id}']")
    press(chromium, Keys.ENTER)
    chromium.wait(f"location.pathname === '/searches/{id}'")
    chromium.wait(DRAWN)
    walk_to(chromium, ".plot")
    press(chromium, Keys.ARROW_RIGHT)
    said = chromium.wait("document.getElementById('spoken').textContent")
    assert re.search(r"trial \d+", said)  # what is pointed at is read aloud
    walk_to(chromium, f"#front-part a[href^='/searches/{id}/trials/']")
    press(chromium, Keys.ENTER)
    chromium.wait("/trials/.test(location.pathname)")
    walk_to(chromium, "a[href^='/architectures/']")
    well(chromium, url)


def test_without_a_script_everything_can_be_read(kept):
    from ..browser import browser

    url, id, _ = kept
    with browser("--blink-settings=scriptEnabled=false") as plain:
        plain.driver.get(f"{url}/searches/{id}")
        source = plain.driver.page_source
        assert "need JavaScript" in source
        assert len(re.findall(r'/trials/\d+">\d+</a>', source)) >= 14
        assert plain.complaints() == []
