"""`formwright report -o`: a page of a search in a service; and the command on it that submits the
same search again."""

import json
import shlex

import pytest

from formwright.search import SearchSpec
from formwright.search.show.command import command
from formwright.search.testing import a_measurement, a_trial
from formwright.service import Client
from formwright.service.cli.fetch import report
from formwright.service.cli.submit import _spec, submit_parser
from formwright.service.records import SearchState

from ..search.evaluations import arch

SPECS = {
    "default": SearchSpec(),
    "lists": SearchSpec(
        objectives=("params", "quality"),
        knobs=("depth=2", "width=16|32"),
        constraints=("params<=20000", "quality>=0.5"),
        proxies=("snip",),
        rates=(0.001, 3e-05),
    ),
    "numbers": SearchSpec(
        trials=7, seed=3, budget="2e6 tokens", rungs=2, keep=2, audit=0.25, flops=1e15, seconds=60
    ),
    "own": SearchSpec(baselines=(arch().to_json(),)),
    "names": SearchSpec(space="somebodys_space", task="somebodys-task"),
}


def submitted(line):
    """The spec that `formwright submit` makes of a line."""
    words = shlex.split(line)
    assert words[:2] == ["formwright", "submit"]
    return _spec(submit_parser().parse_args(words[2:]))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_command_submits_the_same_search(spec):
    line = command(spec)

    assert submitted(line) == spec
    assert "\n" not in line


def test_what_a_command_line_would_misread_goes_in_as_a_file():
    printf, form, text, *rest = shlex.split(command(SearchSpec(task="-f")))

    assert (printf, form) == ("printf", "%s")
    assert rest == ["|", "formwright", "submit", "-f", "-"]
    assert json.loads(text)["task"] == "-f"


@pytest.fixture
def searches(file_store, path):
    """Two that are done: the ids of mine, and of another."""
    made = []
    for name, sampler in (("<b>mine</b>", "tpe"), ("", "random")):
        spec = SearchSpec(objectives=("quality", "params"), sampler=sampler)
        search = file_store.create_search(spec, "", name)
        claim = file_store.claim("me", 60)
        log = file_store.log(claim)
        for number, quality in enumerate((0.3, 0.5, 0.1)):
            log.append(trial := a_trial(number), trial := trial.started())
            log.append(trial.succeeded(a_measurement(quality)))
        file_store.finish(claim, SearchState.SUCCEEDED)
        made.append(search.id)
    return made


def test_a_page_of_a_search_beside_another(searches, path, tmp_path, capsys):
    mine, other = searches
    page = tmp_path / "report.html"
    named = ["--local", str(path), mine]
    assert report([*named, "-o", str(page), "--beside", other]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"written: {page}"
    text = page.read_text(encoding="utf-8")
    assert "<h1>&lt;b&gt;mine&lt;/b&gt;</h1>" in text
    assert mine in text
    assert "Beside it: random, in the same box" in text
    with Client.local(str(path)) as client:
        for trial in client.best(mine):
            assert trial.architecture.short() in text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--beside", "nobody"], "nobody"),
        (["-o", "no/such/folder/report.html"], "No such file"),
    ],
)
def test_what_cannot_be_is_one_line(searches, path, capsys, flags, said):
    assert report(["--local", str(path), searches[0], *flags]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert said in line
