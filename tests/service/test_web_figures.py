"""The figures of the page and the machines they are of: what is drawn, in numbers."""

import json
import random

import pytest

from formwright.search import METRICS, UNNAMED, Measurement, SearchSpec, as_text, report_page
from formwright.service.results import result_of
from formwright.service.web import findings

from . import shown
from .pages import ask, showing


def test_several_machines_have_a_front_each(store):
    claim, log = shown.running(store)
    for number in range(6):
        started = shown.a_trial(number).started()
        machine = {"fingerprint": "m1:aa" if number < 4 else "m1:bb"}
        end = started.succeeded(shown.measured(number, machine))
        log.append(shown.a_trial(number), started, end)
    record = store.get_search(claim.search.id)
    front = findings.front_of(store, record)
    assert (front.machine, front.machines, front.compared) == ("m1:aa", ["m1:aa", "m1:bb"], 4)
    assert findings.front_of(store, record, "m1:bb").compared == 2
    with showing(store) as url:
        text = ask(url, f"/searches/{record.id}?machine=m1:bb").text
    assert "<option selected>m1:bb</option>" in text


def drawn(store, record, machine="", kind="front", **axes):
    """A figure: what is said, and its traces by the beginning of their names."""
    front = findings.front_of(store, record, machine)
    sent, _ = findings.Kept().figure(store, record, front, kind, axes["x"], axes["y"])
    figure = json.loads(sent.content)
    return figure["said"], {t["name"].split(" (")[0]: t for t in figure["plot"]["data"]}


def of_values(store, objectives, values, machine=lambda at: shown.MACHINE):
    """A search whose trials have succeeded with these values, [trial]."""
    spec = SearchSpec(trials=len(values), objectives=objectives, target="eager")
    claim, log = shown.running(store, spec=spec)
    for at, found in enumerate(values):
        trial, details = shown.a_trial(at), dict(shown.measured(at).details)
        details.pop("machine")
        told = {"machine": machine(at)} if machine(at) else {}
        measurement = Measurement(found, details | told)
        log.append(trial, trial.started(), trial.started().succeeded(measurement))
    return store.get_search(claim.search.id)


def test_a_front_is_drawn_whole_however_few_of_it_are_listed(file_store, monkeypatch):
    monkeypatch.setattr(findings, "SHOWN", 10)
    values = [{"quality": 0.1 + at / 100, "params": 1000 + 10 * at} for at in range(40)]
    record = of_values(file_store, ("quality", "params"), [*values, {"quality": 0, "params": 2000}])
    said, traces = drawn(file_store, record, x="params", y="quality")

    assert said.startswith("40 trials on the front and 1 others")
    assert len(traces["on the front"]["x"]) == len(traces["best in these two"]["x"]) == 40
    assert len(traces["other trials"]["x"]) == 1
    assert len(findings.front_of(file_store, record).trials) == 10

    monkeypatch.setattr(findings, "DRAWN", 20)
    said, traces = drawn(file_store, record, x="params", y="quality")
    assert len(traces["on the front"]["x"]) == 20
    assert said.endswith("21 more are not drawn, 20 of them on the front.")


def test_latencies_of_two_machines_are_in_no_figure_together(file_store):
    values = [
        {"quality": 0.1 + at / 100, "params": 10 + at, "latency_ms": 1000.0 if at % 3 else 1.0}
        for at in range(9)
    ]
    several = lambda at: {"fingerprint": "m1:slow" if at % 3 else "m1:fast"}  # noqa: E731
    record = of_values(file_store, ("quality", "params"), values, several)
    front = findings.front_of(file_store, record)
    said, traces = drawn(file_store, record, x="latency_ms", y="quality")

    assert (front.machine, front.machines, front.all) == ("", ["m1:fast", "m1:slow"], True)
    assert set(traces["on the front"]["x"]) == {1000.0}
    assert "Of the machine m1:slow, as latencies do not compare." in said
    _, traces = drawn(file_store, record, "m1:fast", x="latency_ms", y="quality")
    assert set(traces["on the front"]["x"]) == {1.0}
    said, traces = drawn(file_store, record, x="params", y="quality")
    assert len(traces["on the front"]["x"]) == 9
    with showing(file_store) as url:
        text = ask(url, f"/searches/{record.id}").text
    assert '<option value="" selected>all machines</option><option>m1:fast</option>' in text


def test_trials_that_tell_no_machine_are_a_machine_of_their_own(file_store):
    values = [
        {"quality": 0.1 + at / 100, "latency_ms": 100.0 if at % 3 else 1.0} for at in range(9)
    ]
    named = lambda at: None if at % 3 else {"fingerprint": "m1:aa"}  # noqa: E731
    record = of_values(file_store, ("quality", "latency_ms"), values, named)
    front = findings.front_of(file_store, record)
    assert (front.machine, front.machines, front.compared) == (UNNAMED, ["m1:aa", UNNAMED], 6)
    for machine, latency in (("m1:aa", 1.0), (UNNAMED, 100.0)):
        _, traces = drawn(file_store, record, machine, x="latency_ms", y="quality")
        assert set(traces["on the front"]["x"]) == {latency}

    result = result_of(record, file_store.list_trials(record.id, 100).items)
    assert result.machines == [UNNAMED, "m1:aa"]
    assert len(result.front(machine=UNNAMED)) == front.size
    assert "hypervolume" in as_text(result)
    assert "3 of other machines" in report_page(result)


def test_the_growth_of_many_objectives_is_an_estimate(file_store):
    names = tuple(METRICS)[:8]
    rng = random.Random(1)
    values = [{name: rng.uniform(1, 100) for name in names} for _ in range(30)]
    record = of_values(file_store, names, values)
    said, traces = drawn(file_store, record, kind="growth", x="params", y="quality")
    result = result_of(record, file_store.list_trials(record.id, 100).items)

    assert "(estimated)" in said
    assert traces["The front"]["y"][-1] == pytest.approx(result.hypervolume())


def test_the_hypervolume_is_that_of_the_result(file_store):
    store, ended = file_store, shown.ended(file_store, 30)
    record = store.get_search(ended)
    front = findings.front_of(store, record)
    sent, _ = findings.Kept().figure(store, record, front, "growth", "params", "quality")
    curve = json.loads(sent.content)["plot"]["data"][-1]
    result = result_of(record, store.list_trials(ended, 100).items)
    wanted = dict.fromkeys(round(step.hypervolume, 9) for step in result.growth())
    assert list(dict.fromkeys(round(y, 9) for y in curve["y"][1:])) == list(wanted)
