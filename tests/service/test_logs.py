"""The log: what a line has, what it never shows, and that what is about one call stays with it."""

import asyncio
import json
import logging
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy import Engine, event

from formwright.search import SearchSpec
from formwright.service import Client, SearchState, logs
from formwright.service.access import Scope
from formwright.service.embedded import address_of, start_server, stop_server
from formwright.service.labels import add, carried, current, labels
from formwright.service.store import Store, open_store
from formwright.service.wire import search_pb2 as pb
from formwright.service.wire import search_pb2_grpc as pb_grpc

from .logged import ID, SECRET, TOKEN, URL, lines, logged, of
from .servers import hosting, serving

COUNTS = SearchSpec(trials=2, objectives=("params", "flops"), sampler="random")


log = logging.getLogger("formwright.test")


def test_a_line_of_json_has_what_it_is_about():
    with logged() as stream, labels(search="0a1b", trial=7):
        more = {"code": "OK", "far": float("inf"), "level": "x", "_mark_of_a_library": 1}
        log.warning("said %d\nthings", 2, extra=more)
        try:
            raise ValueError("wrong")
        except ValueError:
            log.exception("it failed")
    first, second = lines(stream)

    at = datetime.fromisoformat(first.pop("time"))
    assert at.utcoffset() == timedelta(0)
    assert first.pop("pid") > 0
    assert first == {
        "level": "WARNING", "logger": "formwright.test", "message": "said 2\nthings",
        "search": "0a1b", "trial": "7", "code": "OK", "far": "inf",
    }  # fmt: skip
    assert second["exception"].startswith("Traceback")
    assert second["exception"].endswith("ValueError: wrong")


def test_text_is_one_line_with_labels_where_there_are_any():
    with logged("text", "warning") as stream:
        log.info("nobody hears that")
        log.warning("it is %s", "so")
        with labels(trial=1, search="0a1b", caller=""):
            log.warning("it is\nformwright.service: forged \x1b[2J")

    assert stream.getvalue().splitlines() == [
        "formwright.test: it is so",
        "formwright.test: it is\\nformwright.service: forged \\x1b[2J [search=0a1b trial=1]",
    ]


def test_libraries_are_heard_through_the_same_handler():
    for name in ("uvicorn.access", "sqlalchemy.engine"):
        logging.getLogger(name).addHandler(logging.StreamHandler())
    with logged() as stream:
        for name in ("uvicorn.access", "alembic.runtime", "grpc._x", "sqlalchemy.engine"):
            logging.getLogger(name).info("at info")
            logging.getLogger(name).warning("got %s", TOKEN)
    heard = [(line["logger"], line["level"]) for line in lines(stream)]
    for name in ("uvicorn.access", "sqlalchemy.engine"):
        logging.getLogger(name).handlers.clear()

    assert heard == [
        ("uvicorn.access", "INFO"), ("uvicorn.access", "WARNING"),
        ("alembic.runtime", "INFO"), ("alembic.runtime", "WARNING"),
        ("grpc._x", "WARNING"), ("sqlalchemy.engine", "WARNING"),
    ]  # fmt: skip


def test_what_nobody_catches_is_logged():
    def fail():
        raise ValueError(URL)

    with logged() as stream:
        thread = threading.Thread(target=fail, name="the-thread")
        thread.start()
        thread.join()
        before = logs.counts()
    (line,) = lines(stream)
    assert (line["level"], before) == ("CRITICAL", {"CRITICAL": 1})
    assert "the-thread" in line["message"]
    assert "postgresql+psycopg://me:***@host:5432/name" in line["exception"]

    code = f"from formwright.service import logs; logs.set_up('json'); raise ValueError({URL!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    said = json.loads(done.stderr)
    assert said["level"] == "CRITICAL"
    assert SECRET not in done.stderr


def test_labels_of_tasks_and_threads_never_mix():
    rounds, many = 20, 20
    wrong, pool = [], ThreadPoolExecutor(4)
    loop_threads = threading.Barrier(4)

    def in_thread(name):
        if current() != {"call": name}:
            wrong.append((name, current()))
        add(search=name)
        with labels(trial=name):
            if current() != {"call": name, "search": name, "trial": name}:
                wrong.append((name, current()))

    async def task(name):
        loop = asyncio.get_running_loop()
        for _ in range(rounds):
            with labels(call=name):
                await asyncio.sleep(0)
                await loop.run_in_executor(pool, carried(in_thread), name)
                if current() != {"call": name, "search": name}:  # the thread has found out
                    wrong.append((name, current()))

    async def tasks(prefix):
        await asyncio.gather(*(task(f"{prefix}-{at}") for at in range(many)))

    def loops(at):
        loop_threads.wait(30)
        asyncio.run(tasks(at))

    threads = [threading.Thread(target=loops, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.shutdown()

    assert wrong == []
    add(search="outside")
    assert current() == {}


@pytest.fixture
def statements():
    """Each statement of a database is logged where it is run."""

    def seen(connection, cursor, statement, *rest):
        log.info("%s", statement.split()[0], extra={"thread_name": threading.current_thread().name})

    event.listen(Engine, "before_cursor_execute", seen)
    yield
    event.remove(Engine, "before_cursor_execute", seen)


def test_a_call_and_what_its_threads_log_have_the_same_labels(path, statements):
    with logged() as stream, serving(path) as address, Client(address) as client:
        made = client.submit(SearchSpec())
        client.cancel(made.id)
    access = {line["method"]: line for line in of(stream, "formwright.access")}
    ran = [line for line in of(stream, "formwright.test") if "call" in line]

    assert [access[name]["code"] for name in ("CreateSearch", "CancelSearch")] == ["OK", "OK"]
    assert {access[name]["search"] for name in ("CreateSearch", "CancelSearch")} == {made.id}
    assert access["CancelSearch"]["milliseconds"] > 0
    assert access["CancelSearch"]["call"] != access["CreateSearch"]["call"]
    for line in ran:
        assert line["call"] == access[line["method"]]["call"]
        assert line["thread_name"].startswith("formwright-writing")
    updates = [line for line in ran if line["message"] == "UPDATE"]
    assert {line["search"] for line in updates if line["method"] == "CancelSearch"} == {made.id}


def test_refusals_say_why_and_health_is_quiet(path):
    with logged() as stream, serving(path) as address, grpc.insecure_channel(address) as channel:
        stub, health = pb_grpc.SearchServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        for name in ("searches/0a1b", "0a1b"):
            with pytest.raises(grpc.RpcError):
                stub.GetSearch(pb.GetSearchRequest(name=name))
        health.Check(health_pb2.HealthCheckRequest())
        logging.getLogger("formwright").setLevel(logging.DEBUG)
        health.Check(health_pb2.HealthCheckRequest())
    first, second, third = of(stream, "formwright.access")

    assert (first["code"], first["reason"], first["search"]) == ("NOT_FOUND", "NOT_FOUND", "0a1b")
    assert (second["code"], second["reason"]) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert "search" not in second
    assert (third["level"], third["method"], third["code"]) == ("DEBUG", "Health/Check", "OK")


def test_an_error_that_nobody_foresaw_is_found_by_its_id(path, monkeypatch):
    def fail(self, id):
        raise KeyError(TOKEN)

    monkeypatch.setattr(Store, "get_search", fail)
    with logged() as stream, serving(path) as address, grpc.insecure_channel(address) as channel:
        stub = pb_grpc.SearchServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.GetSearch(pb.GetSearchRequest(name="searches/0a1b"))
    (line,) = of(stream, "formwright.service")
    (access,) = of(stream, "formwright.access")

    assert caught.value.details() == f"internal error: (id {line['call']})"
    assert (line["level"], line["search"]) == ("ERROR", "0a1b")
    assert line["exception"].endswith(f"KeyError: 'fw_{ID}_***'")
    assert (access["code"], access["call"]) == ("INTERNAL", line["call"])


def test_a_caller_is_named_and_its_token_is_not(path):
    store = open_store(str(path))
    token, record = store.access.create("ann", Scope.READ)
    store.close()
    other = token[:-1] + ("A" if token[-1] != "A" else "B")
    good, wrong = ([("authorization", f"Bearer {text}")] for text in (token, other))
    with (
        logged() as stream,
        hosting(path, tokens=True) as (address, _),
        grpc.insecure_channel(address) as channel,
    ):
        stub = pb_grpc.SearchServiceStub(channel)
        stub.ListSearches(pb.ListSearchesRequest(), metadata=good)
        with pytest.raises(grpc.RpcError):
            stub.CreateSearch(pb.CreateSearchRequest(), metadata=good)
        with pytest.raises(grpc.RpcError):
            stub.ListSearches(pb.ListSearchesRequest(), metadata=wrong)
    listed, forbidden, unknown = of(stream, "formwright.access")

    assert (listed["code"], listed["caller"]) == ("OK", f"ann/{record.id}")
    assert (forbidden["code"], forbidden["caller"]) == ("PERMISSION_DENIED", f"ann/{record.id}")
    assert (unknown["code"], unknown.get("caller")) == ("UNAUTHENTICATED", None)
    assert token.rpartition("_")[2][:20] not in stream.getvalue()


def test_every_process_of_a_server_logs_as_it_was_told(path, tmp_path, monkeypatch):
    monkeypatch.setenv("FORMWRIGHT_LOG_FORMAT", "json")
    monkeypatch.setenv("FORMWRIGHT_LOG_LEVEL", "info")
    with (tmp_path / "log").open("w") as file:
        process = start_server(path, workers=0, stderr=file)
        try:
            with Client(address_of(process)) as client:
                made = client.submit(COUNTS)
                ended = client.wait(made.id)
        finally:
            stop_server(process)
    said = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    of_scheduler = [line for line in said if line["logger"] == "formwright.scheduler"]

    assert ended.state is SearchState.SUCCEEDED
    assert next(line["method"] for line in said if line.get("code")) == "CreateSearch"
    assert of_scheduler[0]["message"] == "claimed, epoch 1"
    assert {line["search"] for line in of_scheduler} == {made.id}
    assert of_scheduler[0]["pid"] != process.pid
