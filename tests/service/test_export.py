"""`formwright export`: what other programs find in what it wrote, and what it does not write."""

import csv
import json
import os
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState as Optuna

from formwright.__main__ import main
from formwright.search import SearchSpec, TrialState
from formwright.search.testing import a_measurement, a_trial
from formwright.service import Client, local_server, result_of, study_of, to_frame
from formwright.service.exports import Target
from formwright.service.records import SearchState
from formwright.service.redact import redacted
from formwright.service.store import open_store
from formwright.service.testing_unit import free_port

SPEC = SearchSpec(objectives=("quality", "params"))
HOSTILE = '=HYPERLINK("http://x") größer, "quoted"'
ENDED = 5


@pytest.fixture(scope="module")
def searches(tmp_path_factory):
    """A database with a search that has all kinds of trials, and an empty one; their ids."""
    path = tmp_path_factory.mktemp("export") / "searches.db"
    store = open_store(str(path))
    search = store.create_search(SPEC, "", HOSTILE)
    claim = store.claim("me", 60)
    log = store.log(claim)
    for number in range(ENDED + 2):
        log.append(trial := a_trial(number))
        if number > ENDED:
            break  # it waits
        log.append(trial := trial.started())
        if number < 3:
            measured = a_measurement((0.3, 0.5, 0.1)[number])
            values = {**measured.values, "params": 100.0 - 10 * number}
            log.append(trial.succeeded(replace(measured, values=values)))
        elif number == 3:
            log.append(trial.failed(HOSTILE))
        elif number == 4:
            log.append(trial.pruned("params is 5, not <= 4", a_measurement(0.2)))
    store.finish(claim, SearchState.SUCCEEDED)
    empty = store.create_search(SPEC, "", "")
    store.close()
    with Client.local(str(path)) as client:
        client.cancel(empty.id)  # or a server would run it
    return path, search.id, empty.id


@pytest.fixture
def export(searches, capsys):
    """The command, on that database: its exit code, and what it said."""
    path, id, _ = searches

    def run(*arguments, search=id, local=path):
        code = main(["export", search, "--local", str(local), *map(str, arguments)])
        said = capsys.readouterr()
        assert not (code and said.out)
        return code, (said.out or said.err).strip()

    return run


@pytest.fixture
def records(searches):
    path, id, _ = searches
    with Client.local(str(path)) as client:
        return client.get(id), list(client.trials(id))


def test_the_genes_come_over_the_wire(searches, records):
    path, id, _ = searches
    with local_server(path, workers=0) as address, Client(address) as client:
        trials = list(client.trials(id))
    assert trials == records[1]
    assert [trial.params for trial in trials] == [dict(a_trial(n).params) for n in range(7)]


def test_a_table(export, records, tmp_path):
    code, said = export("--to", tmp_path / "a.csv")
    assert (code, said) == (0, f"search {records[0].id}: 7 trials in {tmp_path / 'a.csv'}")

    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    frame = to_frame(records[1])
    assert header == list(frame)
    metrics = [f"metrics.{name}" for name in ("quality", "latency_ms", "params")]
    genes = [f"params.{name}" for name in ("act", "bias", "scale", "width")]
    first = ["search", "number", "state", "attempt", "rung", *metrics, *genes, "machine", "error"]
    assert header == [*first, "fingerprint", "architecture", "details", "created", "updated"]
    cells = [dict(zip(header, row, strict=True)) for row in rows]
    assert [cell["number"] for cell in cells] == [str(number) for number in range(7)]
    assert [float(cell["metrics.quality"]) for cell in cells[:3]] == [0.3, 0.5, 0.1]
    assert cells[3]["metrics.quality"] == ""
    assert cells[3]["error"] == f"'{HOSTILE}"  # no formula
    architectures = [trial.architecture.to_dict() for trial in records[1]]
    assert [json.loads(cell["architecture"]) for cell in cells] == architectures
    assert not any(text.startswith(tuple("=+-@")) for row in rows for text in row)


def test_json(export, records, tmp_path):
    assert export("--to", tmp_path / "a.json")[0] == 0

    rows = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert [row["number"] for row in rows] == list(range(7))
    for row, trial in zip(rows, records[1], strict=True):
        assert row["metrics"] == trial.values
        assert row["params"] == trial.params
        assert row["architecture"] == trial.architecture.to_dict()
        assert row["details"] == trial.details
        assert (row["state"], row["error"]) == (trial.state.value, trial.error)
        assert row["created"] == trial.created.isoformat()


def test_parquet(export, records, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    assert export("--to", tmp_path / "a.parquet")[0] == 0

    found = pandas.read_parquet(tmp_path / "a.parquet")
    assert list(found) == list(to_frame(records[1]))
    assert list(found["metrics.quality"][:3]) == [0.3, 0.5, 0.1]


def test_to_the_standard_output(export, tmp_path):
    export("--to", tmp_path / "a.csv")
    code, text = export("--to", "-", "--format", "csv")
    assert code == 0
    assert text.splitlines() == (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()
    assert len(json.loads(export("--to", "-", "--format", "json")[1])) == 7


def test_nothing_is_there_yet(export, searches, tmp_path):
    empty = searches[2]
    for name in ("a.csv", "a.json", "optuna:a.db", "optuna:a.log"):
        kind, colon, file = name.rpartition(":")
        code, said = export("--to", f"{kind}{colon}{tmp_path / file}", search=empty)
        assert (code, said.startswith(f"search {empty}: 0 trials in ")) == (0, True), said
    assert json.loads((tmp_path / "a.json").read_text()) == []


@pytest.mark.parametrize("place", ["a.db", "a.log", "postgresql"])
def test_a_study(export, records, searches, tmp_path, place, request):
    id = searches[1]
    search, trials = records
    server = request.getfixturevalue("postgresql")() if place == "postgresql" else ""
    to = server or str(tmp_path / place)
    code, said = export("--to", f"optuna:{to}")
    assert code == 0, said
    assert said == f"search {id}: 7 trials in {redacted(f'optuna:{to}')}, study {id}"

    code, said = export("--to", f"optuna:{to}")
    assert code == 2
    assert f"there is a study '{id}' already" in said
    assert export("--to", f"optuna:{to}", "--replace")[0] == 0
    study = optuna.load_study(study_name=id, storage=storage(to))

    assert study.user_attrs["display_name"] == HOSTILE
    assert (study.user_attrs["search"], study.user_attrs["state"]) == (id, "SUCCEEDED")
    states = [*[Optuna.COMPLETE] * 3, Optuna.FAIL, Optuna.PRUNED, Optuna.RUNNING, Optuna.RUNNING]
    # the search's end has pruned what was still open
    assert [trial.state for trial in study.trials] in (states, [*states[:5], *[Optuna.PRUNED] * 2])
    assert {trial.number for trial in study.best_trials} == {1, 2} | {
        trial.number for trial in result_of(search, trials).front()
    }
    for record, trial in zip(trials, study.trials, strict=True):
        assert trial.params == record.params
        assert trial.datetime_start.astimezone(UTC) == record.created
        if trial.datetime_complete:
            assert trial.datetime_complete.astimezone(UTC) == record.updated


def storage(to):
    if to.endswith(".log"):
        backend = optuna.storages.journal.JournalFileBackend(to)
        return optuna.storages.JournalStorage(backend)
    url = f"sqlite:///{to}" if "://" not in to else to.replace("sql://", "sql+psycopg://")
    return optuna.storages.RDBStorage(url)


def test_in_python(records):
    search, trials = records
    study = study_of(search, trials)
    assert study.study_name == search.id
    assert [trial.number for trial in study.trials] == list(range(7))
    assert to_frame(result_of(search, trials)).shape[0] == 7


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--to", "a.txt"], "'a.txt' is none of FILE.csv, FILE.json, FILE.parquet, optuna:URL"),
        (["--to", "optuna:"], "wanted optuna:URL or optuna:FILE"),
        (["--to", "optuna:a.db", "--format", "csv"], "without a format"),
        (["--to", "-"], "'-' is none of"),
        (["--to", "-", "--format", "parquet"], "Parquet goes to a file"),
        (["--to", "a.csv", "--study-name", "x"], "--study-name is for optuna:"),
        (["--to", "a.csv", "--beside"], "--beside is for optuna:"),
        (["--to", "nowhere/a.csv"], "nowhere"),
        (["--to", "optuna:nowhere/a.db"], "it does not open"),
        (["--to", "optuna:a.db", "--study-name", "a\nb"], "no name of a study"),
    ],
    ids=[
        *("ending", "no-place", "two-formats", "no-format", "binary", "study-of-a-table"),
        *("beside-of-a-table", "no-folder", "no-folder-for-a-study", "name"),
    ],
)
def test_refused(export, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    code, said = export(*arguments)
    assert (code, len(said.splitlines())) == (2, 1)
    assert says in said
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(export, searches, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("mine")
    code, said = export("--to", path)
    assert (code, path.read_text()) == (2, "mine")
    assert "is there already; --replace writes over it" in said
    assert export("--to", path, "--replace")[0] == 0
    assert path.read_text(encoding="utf-8").startswith("search,number")
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]

    code, said = export("--to", searches[0], "--format", "csv", "--replace")
    assert code == 2
    assert "is a database; nothing is written over it" in said


@pytest.mark.parametrize("how", ["path", "url"])
def test_a_database_with_searches(export, searches, tmp_path, how):
    """By mistake nothing gets into it; on purpose a study lives beside them."""
    own = tmp_path / "own.db"
    with sqlite3.connect(searches[0]) as one, sqlite3.connect(own) as other:
        one.backup(other)
    to = f"optuna:{own}" if how == "path" else f"optuna:sqlite:///{own}"
    before = tables(own)
    code, said = export("--to", to, local=own)
    assert code == 2
    assert "holds searches; a study can live beside them, in tables of its own: --beside" in said
    assert tables(own) == before

    assert export("--to", to, "--beside", local=own)[0] == 0
    assert tables(own) > before
    with Client.local(str(own)) as client:
        assert len(list(client.trials(searches[1]))) == 7


def tables(path):
    with sqlite3.connect(path) as database:
        return {name for (name,) in database.execute("SELECT name FROM sqlite_master")}


def test_a_password_is_not_shown():
    target = Target.of("optuna:postgresql://me:secret@host/name?sslpassword=secret&x=1")
    assert target.place == "postgresql://me:secret@host/name?sslpassword=secret&x=1"
    assert str(target) == "optuna:postgresql://me:***@host/name?sslpassword=***&x=1"


def test_optuna_dashboard_opens_it(export, records, tmp_path):
    pytest.importorskip("optuna_dashboard")
    search, trials = records
    assert export("--to", f"optuna:{tmp_path / 'study.db'}")[0] == 0

    with dashboard(f"sqlite:///{tmp_path / 'study.db'}") as get:
        (summary,) = get("/api/studies")["study_summaries"]
        study = get(f"/api/studies/{summary['study_id']}")
        page = get("/dashboard", plain=True)

    assert b"<html" in page
    assert summary["study_name"] == study["name"] == search.id
    assert study["directions"] == ["maximize", "minimize"]
    assert study["objective_names"] == list(SPEC.objectives)
    attrs = {attr["key"]: attr["value"] for attr in study["user_attrs"]}
    assert attrs["display_name"] == HOSTILE
    assert SearchSpec.from_json(attrs["spec"]) == SPEC
    assert [t["number"] for t in study["trials"]] == [t.number for t in trials]
    assert [t["state"] for t in study["trials"]][:5] == ["Complete"] * 3 + ["Fail", "Pruned"]
    for record, trial in zip(trials, study["trials"], strict=True):
        if record.state is TrialState.SUCCEEDED:
            assert trial["values"] == [record.values[name] for name in SPEC.objectives]
        shown = {param["name"]: param["param_external_value"] for param in trial["params"]}
        assert shown == {name: str(value) for name, value in record.params.items()}
    front = result_of(search, trials).front()
    assert {t["number"] for t in study["best_trials"]} == {trial.number for trial in front}


@contextmanager
def dashboard(url):
    """A function that asks the dashboard of a storage, which is a process of its own."""
    port = free_port()
    command = [Path(sys.executable).parent / "optuna-dashboard", url, "--quiet"]
    place = ["--host", "127.0.0.1", "--port", str(port), "--server", "wsgiref"]
    process = subprocess.Popen([*command, *place], env={**os.environ, "NO_PROXY": "*"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(path, plain=False):
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            text = answer.read()
        return text if plain else json.loads(text)

    try:
        until = time.monotonic() + 240
        while time.monotonic() < until:
            assert process.poll() is None, "it has ended"
            with suppress(OSError):
                get("/api/meta")
                break
            time.sleep(0.1)
        else:
            raise AssertionError("it does not answer")
        yield get
    finally:
        process.terminate()
        process.wait(30)
