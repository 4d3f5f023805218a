"""The report: one page with all of a search, that asks nobody, and that nobody can break."""

import json
import re
import subprocess
import sys
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from formwright.search import (
    Result,
    SpecError,
    TrialState,
    draw,
    report_page,
    save_report,
    templates,
)
from formwright.search.show.findings import DRAWN, Findings
from formwright.search.show.html import assets

from .recorded import SPEC, searched, with_block

SECTIONS = [
    *("What was searched", "The front", "Hypervolume", "Trials on the front", "Architectures"),
    *("What matters", "Ranking fidelity", "How it went", "Compiler", "Machines"),
]
EVIL = "</script><script>bad()</script><img src=http://example.invalid/x onerror=bad()>'\"&"
VOID = {"meta", "input", "br", "img", "link", "hr"}


class Page(HTMLParser):
    """What is on a page: elements with their attributes, and the text of each."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(text)
        assert not self._open, self._open

    def handle_starttag(self, tag, attributes):
        element = [tag, dict(attributes), ""]
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag, tag

    def handle_data(self, data):
        for element in self._open:
            element[2] += data

    def of(self, tag):
        return [(a, text) for name, a, text in self.elements if name == tag]

    def texts(self, tag):
        return [" ".join(text.split()) for _, text in self.of(tag)]

    def figures(self):
        return {
            json.dumps(a["aria-label"]): json.loads(a["data-figure"])
            for _, a, _ in self.elements
            if "data-figure" in a
        }


def spoilt(result):
    """The same, whatever others may write being hostile."""
    first, *_ = result.front()
    bad = {
        first.number: replace(
            with_block(first, EVIL),
            details={
                "machine": {"fingerprint": "m", "cpu": EVIL},
                "report": {"passes": [{"name": EVIL, "sites": 1, "declined": [{"code": EVIL}]}]},
                "seconds": {EVIL: 1.0},
                "proxies": {EVIL: 1.0},
            },
            params={EVIL: EVIL},
        ),
    }
    for trial in result.trials:
        if trial.state is TrialState.FAILED:
            bad[trial.number] = replace(trial, error=EVIL)
    trials = tuple(bad.get(trial.number, trial) for trial in result.trials)
    return Result(result.spec, trials)


@pytest.fixture(scope="module")
def result():
    return searched()


@pytest.fixture(scope="module")
def few():
    """Too few trials to learn from what matters, which takes its time."""
    return searched(replace(SPEC, trials=16))


@pytest.fixture(scope="module")
def text(result):
    return report_page(result, title="Mine", state="succeeded", name="abc")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_every_section_is_there_with_headings_in_order(page):
    assert page.texts("h1") == ["Mine"]
    assert page.texts("h2") == SECTIONS
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [a["id"] for _, a, _ in page.elements if "id" in a]
    assert len(set(ids)) == len(ids)
    links = [a["href"] for a, _ in page.of("a")]
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert all(a["aria-labelledby"] in ids for a, _ in page.of("section"))


def test_every_figure_has_words_and_a_table(page):
    said = {a["id"]: text for _, a, text in page.elements if "id" in a}
    drawn = [a for _, a, _ in page.elements if "data-figure" in a]

    assert len(drawn) >= 4
    for attributes in drawn:
        assert attributes["role"] == "img"
        assert attributes["tabindex"] == "0"
        assert attributes["aria-label"]
        assert said[attributes["aria-describedby"]].strip()
    assert len(page.of("figure")) == len(drawn)
    assert len(page.of("details")) >= len(drawn)


def test_the_numbers_are_those_of_the_result(page, result):
    tiles = dict(zip(page.texts("dt"), page.texts("dd"), strict=True))
    succeeded, failed = len(result.succeeded), result.states[TrialState.FAILED]

    assert tiles["trials ended"] == f"24{succeeded} succeeded, {failed} failed"
    assert tiles["on the front"].startswith(str(len(result.front())))
    assert tiles["hypervolume"].startswith(f"{result.hypervolume():.3f}")
    assert f"Not drawn: {failed} failed." in " ".join(page.texts("p"))
    assert f"{failed} failed" in page.texts("h3")
    bodies = [(a, text) for a, text in page.of("tbody") if a.get("class", "").startswith("by-")]
    assert len(bodies) == len(result.spec.objectives) + 1
    for _, text in bodies:
        for trial in result.front():
            assert trial.architecture.short() in text
    assert len(page.of("svg")) == min(len(result.front()), DRAWN)
    assert draw(result.front()[0].architecture, styled=False).count("<style") == 0


def test_the_table_has_an_order_for_each_objective(few):
    found = Findings.of(few)
    for name, trials in found.orders[:-1]:
        best = few.best(name)
        assert trials[0].values[name] == best.values[name]
    assert [t.number for t in found.orders[-1][1]] == sorted(t.number for t in few.front())


def test_nothing_is_asked_of_anybody(page, text):
    for tag, attributes, _ in page.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert attributes.get(name, "#").startswith("#"), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), attributes
    (policy,) = [a["content"] for a, _ in page.of("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none'; ")
    scripts = [script for _, script in page.of("script")]
    assert len(scripts) == 2
    for script in scripts:
        digest = b64encode(sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    outside = text.replace(assets.asset("plotly.min.js"), "")
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", outside) == []


def test_hostile_texts_are_texts(few):
    bad = spoilt(few)
    text = report_page(bad, title=EVIL, state=EVIL, name=EVIL)
    page = Page(text)

    assert page.texts("h1") == [EVIL]
    assert page.texts("h2") == SECTIONS
    assert len(page.of("script")) == 2
    assert page.of("img") == []
    assert "<script>bad" not in text
    for a in (a for _, a, _ in page.elements if "data-figure" in a):
        assert "<script" not in a["data-figure"]
    raw = re.findall(r"data-figure='([^']*)'", text)
    assert len(raw) == len(page.figures())
    assert all("<" not in json_text and ">" not in json_text for json_text in raw)
    assert "&lt;/script&gt;&lt;script&gt;bad" in json.dumps(list(page.figures().values()))


def test_a_search_without_results_has_a_page(few):
    for trials in ((), tuple(t for t in few.trials if t.state is TrialState.FAILED)):
        page = Page(report_page(Result(SPEC, trials)))
        assert page.texts("h2") == SECTIONS
        assert page.figures() == {}


@pytest.mark.parametrize(
    "details",
    [
        {"report": 5, "machine": "odd", "proxies": [], "rungs": 3},
        {"report": {"passes": "odd"}, "machine": {"fingerprint": None, "cpu": [1]}},
        {"report": {"passes": [3, {}, {"sites": "x"}, {"sites": 2, "declined": [4, {}]}]}},
    ],
    ids=["words", "shapes", "passes"],
)
def test_details_of_another_form_count_as_not_told(few, details):
    trials = tuple(replace(trial, details=details) for trial in few.trials)
    spec = replace(few.spec, objectives=("quality", "params"))
    assert Page(report_page(Result(spec, trials))).texts("h2") == SECTIONS


def test_what_the_compiler_did_is_told_of_each_architecture_of_the_front(few):
    declined = [{"code": "not_worth_it"}, {"code": "not_worth_it"}]
    report = {"passes": [{"name": "fuse", "sites": 5, "rewritten": 3, "declined": declined}]}
    trials = tuple(replace(t, details={**t.details, "report": report}) for t in few.trials)
    found = Findings.of(Result(few.spec, trials))

    assert found.compiled == [
        (str(t.number), "fuse 3", "fuse: not_worth_it x 2") for t in found.front
    ]
    (machine,) = found.machines
    assert dict(machine) == {"trials": str(len(few.succeeded)), "fingerprint": "m"}


def test_searches_beside_it(few):
    other = searched(replace(SPEC, seed=3))
    page = Page(report_page(few, [other]))
    figures = page.figures()

    assert '"Hypervolume over seconds of evaluation"' in figures
    lines = figures['"Hypervolume over evaluations"']["data"]
    assert [line["name"] for line in lines] == ["random", "random 2"]
    assert "not a random search" not in " ".join(page.texts("p"))
    with pytest.raises(SpecError, match="wanted a search for"):
        report_page(few, [replace(other, spec=replace(SPEC, objectives=("params",)))])


def test_it_is_written_whole_or_not_at_all(tmp_path):
    path = save_report(Result(SPEC, ()), tmp_path / "report.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    folder = tmp_path / "folder"
    folder.mkdir()
    for save in (lambda path: save_report(Result(SPEC, ()), path), Result(SPEC, ()).save):
        for place, said in (
            (tmp_path / "no" / "report.html", "No such file"),
            (folder, "Is a dir"),
        ):
            with pytest.raises(OSError, match=f"{said}.*'{place}'"):
                save(place)
    assert {p.name for p in tmp_path.iterdir()} == {"report.html", "folder"}


def test_a_template_with_a_mistake_says_so():
    from jinja2 import UndefinedError

    page = templates().from_string("{{ there_is_no_such_name }}")
    with pytest.raises(UndefinedError, match="there_is_no_such_name"):
        page.render()


@pytest.mark.parametrize("guest", ["jinja2", "plotly"])
def test_without_the_extra_one_line_says_what_to_install(guest):
    code = (
        f"import sys; sys.modules[{guest!r}] = None\n"
        "from formwright.search import Result, SearchSpec, report_page\n"
        "report_page(Result(SearchSpec(), ()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert f"needs {guest}, which is not installed" in last
    assert "pip install 'formwright[report]'" in last


def test_a_search_that_goes_on_has_a_page(few):
    """Trials that run are counted, not drawn."""
    running = replace(few.trials[0], state=TrialState.RUNNING, values={}, error="")
    page = Page(report_page(Result(SPEC, (running, *few.trials[1:]))))
    assert "1 running" in " ".join(page.texts("p"))


def test_what_matters_is_said_or_why_not(page, few):
    """Values here are random numbers of the architectures: there is nothing to learn."""
    said = " ".join(page.texts("p"))
    assert "quality: nothing can be said; the forest predicts nothing" in said
    assert "quality: nothing can be said; not enough" in " ".join(Page(report_page(few)).texts("p"))
