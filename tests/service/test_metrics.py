"""The numbers of a server: they move with real calls, and nobody can make more of them."""

import platform
import re
import threading
from collections import defaultdict
from pathlib import Path

import grpc
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import formwright
from formwright.search import SearchSpec
from formwright.search.testing import a_measurement, a_trial
from formwright.service import Client, SearchState, metrics
from formwright.service.calls import CHECK, Calls
from formwright.service.errors import DatabaseError
from formwright.service.metrics import BOUNDS, FAMILIES, Metrics
from formwright.service.rpc.methods import METHODS, STREAMS, WATCH
from formwright.service.status import REASONS
from formwright.service.wire import search_pb2 as pb
from formwright.service.wire import search_pb2_grpc as pb_grpc

from .servers import hosting

ROOT = Path(__file__).resolve().parents[2]
ALERTS = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))
SCRAPE = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))


class Numbers:
    """What was rendered, as Prometheus reads it."""

    def __init__(self, made):
        text, kind = made.render()
        assert kind.startswith("text/plain; version=0.0.4")
        self.families = list(text_string_to_metric_families(text.decode()))
        self.series = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def __call__(self, name, **labels):
        return self.series.get((f"formwright_{name}", frozenset(labels.items())))


def away():
    raise DatabaseError("the database is away")


@pytest.fixture
def patient(monkeypatch):
    """A store that answers late has answered all the same."""
    monkeypatch.setattr(metrics, "LIMIT_S", 60.0)


@pytest.fixture
def made():
    """Without a database."""
    made = Metrics(away)
    yield made
    made.close()


def test_numbers_move_with_calls(path, patient):
    with hosting(path) as (address, host), Client(address) as client:
        made = client.submit(SearchSpec())
        for _ in range(3):
            client.get(made.id)
        with grpc.insecure_channel(address) as channel:
            stub = pb_grpc.SearchServiceStub(channel)
            for name in ("searches/0a1b", "nothing"):
                with pytest.raises(grpc.RpcError):
                    stub.GetSearch(pb.GetSearchRequest(name=name))
            watch = stub.WatchSearch(pb.WatchSearchRequest(name=f"searches/{made.id}"))
            first = next(watch)
            during = Numbers(host.metrics)
            client.cancel(made.id)
            rest = list(watch)
        # the watch ends on the server before its client sees the end, but is counted afterwards
        looks = (Numbers(host.metrics) for _ in range(1000))
        after = next(numbers for numbers in looks if not numbers("watchers"))
    sent = [first, *rest]

    assert during("searches", state="QUEUED") == 1
    assert during("watchers") == 1
    assert after("calls_total", method="GetSearch", code="OK") == 3
    assert after("calls_total", method="GetSearch", code="NOT_FOUND") == 1
    assert after("calls_total", method="CancelSearch", code="OK") == 1
    assert after("refusals_total", reason="NOT_FOUND") == 1
    assert after("refusals_total", reason="INVALID_REQUEST") == 1
    assert after("call_duration_seconds_count", method="GetSearch") == 5
    assert after("call_duration_seconds_bucket", method="GetSearch", le="+Inf") == 5
    assert after("call_duration_seconds_sum", method="GetSearch") > 0
    assert after("call_duration_seconds_count", method=WATCH) is None
    assert (after("calls_in_flight"), after("watchers")) == (0, 0)
    assert after("watch_messages_total") == len(sent)
    assert after("watch_bytes_total") == sum(message.ByteSize() for message in sent)
    assert after("answer_lookups_total", result="hit") == 2
    assert after("answer_lookups_total", result="miss") == 3
    assert after("searches", state="QUEUED") == 0
    assert after("searches", state="CANCELLED") == 1


def test_what_the_store_has(store, patient):
    made = Metrics(store.totals)
    assert Numbers(made)("searches_oldest_queued_seconds") == 0
    for _ in range(3):
        store.create_search(SearchSpec(), "")
    claim = store.claim("me", 60)
    running = a_trial(0).started()
    store.log(claim).append(a_trial(0), running, running.succeeded(a_measurement()), a_trial(1))
    store.artifacts.create(claim.search.id, 0, 1)
    store.artifacts.claim("me", 60)
    numbers = Numbers(made)

    assert numbers("database_up") == 1
    assert numbers("database_size_bytes") > 10_000
    states = {state: numbers("searches", state=state) for state in SearchState}
    assert states == dict.fromkeys(SearchState, 0) | {"QUEUED": 2, "RUNNING": 1}
    assert numbers("trials", state="SUCCEEDED") == 1
    assert numbers("trials", state="PENDING") == 1
    assert numbers("trials", state="FAILED") == 0
    assert numbers("artifacts", state="RUNNING") == 1
    assert numbers("leases", of="search") == numbers("leases", of="artifact") == 1
    assert numbers("searches_oldest_queued_seconds") > 0
    assert (
        numbers("build_info", version=formwright.__version__, python=platform.python_version()) == 1
    )
    (schema,) = [dict(labels) for name, labels in numbers.series if name.endswith("schema_info")]
    assert re.fullmatch(r"\d{4}", schema["revision"])

    store.release("me")
    numbers = Numbers(made)
    assert numbers("leases", of="search") == numbers("leases", of="artifact") == 0
    assert numbers("searches", state="RUNNING") == 1
    made.close()


def test_a_database_that_is_away(file_store):
    made = Metrics(file_store.totals)
    file_store.close()
    made.ended("GetSearch", "OK", 0.001)
    numbers = Numbers(made)
    made.close()

    assert numbers("database_up") == 0
    assert numbers("searches", state="QUEUED") is None  # not 0: nobody knows
    assert numbers("calls_total", method="GetSearch", code="OK") == 1
    assert Numbers(made)("database_up") == 0  # after it is closed, too


def test_a_database_that_does_not_answer_is_asked_once(monkeypatch):
    monkeypatch.setattr(metrics, "LIMIT_S", 0.01)
    asked, answers = [], threading.Event()

    def totals():
        asked.append(1)
        assert answers.wait(30)
        raise DatabaseError("late")

    made = Metrics(totals)
    ups = [Numbers(made)("database_up") for _ in range(5)]
    answers.set()
    made._store._thread.shutdown()  # nothing is left to be asked

    assert ups == [0] * 5
    assert len(asked) == 1


def test_nobody_can_make_more_series(path):
    """Whatever is sent, labels have values of our own only."""
    known = {each.name for each in (*METHODS, *STREAMS)} | {WATCH, CHECK}
    with hosting(path) as (address, host), Client(address) as client:
        with grpc.insecure_channel(address) as channel:
            for method in [*sorted(known - {CHECK, WATCH}), "NoSuchMethod", "x" * 100]:
                call = channel.unary_unary(f"/formwright.v1.SearchService/{method}")
                for at in range(5):
                    with pytest.raises(grpc.RpcError):
                        call(f"\xff no message {at}".encode("latin1"))
        before = len(Numbers(host.metrics).series)
        for at in range(20):
            client.submit(SearchSpec(), display_name=f"name {at}", request_id=f"id {at}")
        numbers = Numbers(host.metrics)
    values = defaultdict(set)
    for name, labels in numbers.series:
        if name.startswith("formwright_"):
            for label, value in labels:
                values[label].add(value)

    codes = {code.name for code in grpc.StatusCode}
    assert values["method"] <= known
    assert values["code"] <= codes
    assert values["reason"] <= {*REASONS, "INTERNAL"}
    assert len(values["le"]) == len(BOUNDS) + 1
    assert set(values) <= {label for family in FAMILIES.values() for label in family.labels} | {
        "le"
    }
    assert len(numbers.series) - before <= 1 + len(BOUNDS) + 3  # the first CreateSearch that is OK


def test_two_servers_in_one_process_do_not_mix(tmp_path, patient):
    with hosting(tmp_path / "one.db") as (address, one), hosting(tmp_path / "two.db") as (_, two):
        with Client(address) as client:
            client.submit(SearchSpec())
        numbers = [Numbers(host.metrics) for host in (one, two)]

    assert [n("searches", state="QUEUED") for n in numbers] == [1, 0]
    assert [n("calls_total", method="CreateSearch", code="OK") for n in numbers] == [1, None]


def test_durations_fall_into_buckets(made):
    for seconds in (0.0001, 0.00011, 1.0, 30.0, 31.0):
        made.ended("GetSearch", "OK", seconds)
    numbers = Numbers(made)

    def below(bound):
        return numbers("call_duration_seconds_bucket", method="GetSearch", le=bound)

    assert [below(b) for b in ("0.0001", "0.00025", "1.0", "30.0", "+Inf")] == [1, 2, 3, 4, 5]
    assert numbers("call_duration_seconds_sum", method="GetSearch") == pytest.approx(62.00021)


def test_a_call_that_breaks_off_is_counted(made):
    calls = Calls(made)
    with pytest.raises(KeyError), calls.of("GetSearch"):
        raise KeyError
    with calls.of("GetSearch") as call:
        during = Numbers(made)("calls_in_flight")
        call.refused("NOT_FOUND", "NOT_FOUND")

    numbers = Numbers(made)
    assert (during, numbers("calls_in_flight")) == (1, 0)
    assert numbers("calls_total", method="GetSearch", code="UNKNOWN") == 1
    assert numbers("calls_total", method="GetSearch", code="NOT_FOUND") == 1


def test_names_are_of_the_usual_kind(made):
    for full, family in FAMILIES.items():
        assert re.fullmatch(r"formwright_[a-z_]+", full)
        assert full.endswith("_total") == (family.kind == "counter")
        assert not re.search(r"_(ms|milliseconds|kb|mb|count|sum|bucket)\b", full)
        assert family.meaning.endswith(".")
    made.follow("formwright_watchers", lambda: 1)
    assert Numbers(made)("watchers") == 1
    with pytest.raises(KeyError):
        made.follow("formwright_nothing", lambda: 1)


def test_alerts_ask_for_numbers_that_there_are():
    names = set(FAMILIES) | {
        f"{full}_{part}"
        for full, family in FAMILIES.items()
        if family.kind == "histogram"
        for part in ("bucket", "sum", "count")
    }
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert 5 <= len(rules) <= 8
    for rule in rules:
        asked = re.findall(r"\b(?:formwright_\w+|up\b)", rule["expr"])
        assert asked, rule["alert"]
        assert set(asked) <= names | {"up"}, rule["alert"]
        for name, labels in re.findall(r"(formwright_\w+)\{(.*?)\}", rule["expr"]):
            used = set(re.findall(r"(\w+)=~?\"", labels))
            family = FAMILIES[name.removesuffix("_bucket")]
            assert used <= {*family.labels, "le"}, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
    (job,) = SCRAPE["scrape_configs"]
    assert SCRAPE["rule_files"] == ["alerts.yml"]
    assert f'job="{job["job_name"]}"' in rules[0]["expr"]
    assert float(job["scrape_timeout"].removesuffix("s")) > metrics.LIMIT_S
