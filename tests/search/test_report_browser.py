"""The report as people see it, in a real browser: drawn, without a complaint, asking nobody, with
no barriers, in light and dark, by keyboard and on paper."""

from dataclasses import replace

import pytest

from formwright.search import save_report

from .recorded import SPEC, searched
from .test_report_html import EVIL, spoilt

DRAWN = "[...document.querySelectorAll('[data-figure]')].every(p => p.querySelector('.main-svg'))"
COLOUR = "document.querySelector('[data-figure]').layout.font.color"
SPOKEN = "document.getElementById('spoken').textContent"


@pytest.fixture(scope="module")
def few():
    return searched(replace(SPEC, trials=16))


@pytest.fixture(scope="module")
def url(few, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    return save_report(spoilt(few), path, title=EVIL, state="succeeded").as_uri()


@pytest.fixture
def opened(chromium, url):
    chromium.open(url)
    chromium.wait(DRAWN)
    return chromium


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_drawn_without_complaint_question_or_barrier(chromium, url, scheme):
    chromium.open(url, scheme)
    chromium.wait(DRAWN)
    chromium.driver.execute_script(
        "document.querySelectorAll('details').forEach(details => { details.open = true; })"
    )

    assert chromium.asked() == [url]
    assert chromium.barriers() == []
    assert chromium.complaints() == []
    assert chromium.driver.execute_script("return typeof bad") == "undefined"


def test_figures_follow_the_colour_scheme(opened):
    light = opened.wait(COLOUR)
    opened.prefer("dark")
    dark = opened.wait(f"{COLOUR} !== arguments[0] && {COLOUR}", light)
    opened.prefer("light")
    opened.wait(f"{COLOUR} === arguments[0]", light)
    assert dark.startswith("#")


def test_a_figure_is_drawn_again_when_its_data_change(opened):
    opened.driver.execute_script(
        "const p = document.querySelector('[data-figure]'), f = JSON.parse(p.dataset.figure);"
        "f.layout.xaxis.title.text = 'Changed'; p.dataset.figure = JSON.stringify(f);"
    )
    assert opened.wait("document.querySelector('.xtitle').textContent === 'Changed'")


def test_points_are_reached_and_read_by_keyboard(opened, few):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    figure = opened.driver.find_element(By.CSS_SELECTOR, "[data-figure]")
    figure.send_keys(Keys.HOME)
    first = opened.wait(SPOKEN)
    figure.send_keys(Keys.ARROW_RIGHT)
    second = opened.wait(f"{SPOKEN} !== arguments[0] && {SPOKEN}", first)
    figure.send_keys(Keys.ARROW_LEFT)
    opened.wait(f"{SPOKEN} === arguments[0]", first)
    opened.wait("document.querySelector('.hovertext')")

    across = min(trial.values["latency_ms"] for trial in few.succeeded)
    numbers = [t.number for t in few.succeeded if t.values["latency_ms"] == across]
    assert any(f"trial {number}, " in first for number in numbers)
    assert "trial" in second


def test_the_table_is_sorted_without_a_script(opened, few):
    shown = (
        "[...document.querySelectorAll('.sorted tbody')].filter(b => b.offsetParent !== null)"
        ".map(b => [...b.querySelectorAll('th')].map(t => +t.textContent))"
    )
    inputs = opened.driver.find_elements("css selector", ".sorts input")
    for box, name in zip(inputs, [*SPEC.objectives, ""], strict=True):
        box.click()
        (numbers,) = opened.wait(shown)
        wanted = few.best(name).number if name else min(t.number for t in few.front())
        front = {trial.number: trial.values for trial in few.front()}
        assert set(numbers) == set(front)
        assert not name or front[numbers[0]][name] == front[wanted][name]
        assert name or numbers == sorted(numbers)


def test_on_paper_it_is_light(chromium, url):
    chromium.open(url, "dark")
    chromium.wait(DRAWN)
    dark = chromium.wait(COLOUR)
    chromium.driver.execute_script(
        "addEventListener('beforeprint', () => { window.printed = "
        "document.querySelector('[data-figure]').layout.font.color; });"
    )
    printed = chromium.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert printed["data"].startswith("JVBER")  # %PDF
    assert chromium.wait("window.printed") != dark
    assert chromium.wait(f"{COLOUR} === arguments[0]", dark)


def test_it_fits_a_telephone(chromium, url):
    chromium.open(url, wide=500, high=800)
    chromium.wait(DRAWN)
    assert chromium.wait("document.documentElement.scrollWidth <= innerWidth")
