"""A database of every earlier version, with data, becomes one of this version and keeps it all."""

import hashlib
import json
from datetime import UTC, datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import select, text

from formwright.search import METRICS, Measurement, SearchSpec, TrialState
from formwright.search.testing import a_trial
from formwright.service import access
from formwright.service.errors import NotAllowed
from formwright.service.records import ArtifactState, SearchState
from formwright.service.store import migrate, open_store
from formwright.service.store.artifacts import PIECE
from formwright.service.store.engine import Database, read_url
from formwright.service.store.measured import Scope, undominated
from formwright.service.store.requests import digest
from formwright.service.store.schema import Base, front

SPEC = SearchSpec(objectives=("quality", "latency_ms"))
VALUES = [(0.5, 3.0, "m1:aa"), (0.6, 2.0, "m1:aa"), (0.4, 1.0, "m1:aa"), (0.9, 0.5, "m1:bb")]
FRONT = [("m1:aa", 1), ("m1:aa", 2), ("m1:bb", 3)]
CONTENT = bytes(range(256)) * (PIECE // 256 + 1)
TIME = datetime(2026, 1, 31, 12, tzinfo=UTC)


def at(database, revision):
    """Makes the tables of that version."""
    scripts = ScriptDirectory(str(migrate._FOLDER))
    options = {
        "version_table": migrate.VERSION_TABLE,
        "fn": lambda current, _: scripts._upgrade_revs(revision, current),
    }
    with database.write() as connection:
        context = MigrationContext.configure(connection, opts=options)
        with Operations.context(context):
            context.run_migrations()


def put(connection, table, **row):
    names = ", ".join(row)
    values = ", ".join(f":{name}" for name in row)
    connection.execute(text(f"INSERT INTO formwright_{table} ({names}) VALUES ({values})"), row)


def fill(connection, revision, sqlite):
    """As a server of that version would have: a search that runs, of four trials that have
    succeeded on two machines, and one that has failed."""
    now = TIME.replace(tzinfo=None) if sqlite else TIME
    put(
        connection,
        "searches",
        key=1,
        id="abc",
        request_id="r",
        display_name="mine",
        spec=SPEC.to_json(),
        space=SPEC.space,
        task=SPEC.task,
        state="RUNNING",
        error="",
        owner="",
        epoch=1,
        last_sequence=17,
        created=now,
        updated=now,
    )
    sequence = 0

    def event(number, **payload):
        nonlocal sequence
        sequence += 1
        row = {"search_key": 1, "sequence": sequence, "time": now, "number": number}
        put(connection, "events", **row, payload=json.dumps(payload, sort_keys=True))

    rung = {} if revision == "0001" else {"rung": 0}
    kept = revision >= "0003"  # counts, machines, fronts
    event(None, state="QUEUED", error="")
    event(None, state="RUNNING", error="")
    for number in range(5):
        trial = a_trial(number)
        done = number < len(VALUES)
        quality, latency, machine = VALUES[number] if done else (0, 0, "")
        details = {"machine": {"fingerprint": machine}} if done else {}
        fingerprint = trial.architecture.fingerprint()
        put(connection, "architectures", fingerprint=fingerprint, spec=trial.architecture.to_json())
        put(
            connection,
            "trials",
            search_key=1,
            number=number,
            state="SUCCEEDED" if done else "FAILED",
            attempt=1,
            fingerprint=fingerprint,
            params=json.dumps(dict(trial.params)),
            details=json.dumps(details),
            error="" if done else "it diverged",
            created=now,
            updated=now,
            **rung,
            **({"machine": machine} if kept else {}),
        )
        values = {"quality": quality, "latency_ms": latency} if done else {}
        for metric, value in values.items():
            put(connection, "metrics", search_key=1, number=number, metric=metric, value=value)
        same = {"attempt": 1, "error": "", **rung}
        event(number, state="PENDING", values={}, **same)
        event(number, state="RUNNING", values={}, **same)
        last = {"state": "SUCCEEDED" if done else "FAILED", "values": values}
        event(number, **same | last | {"error": "" if done else "it diverged"})
    assert sequence == 17
    if kept:
        connection.execute(text("UPDATE formwright_searches SET succeeded = 4, failed = 1"))
        asked = digest((SPEC.to_json(), "mine", 0))
        connection.execute(text("UPDATE formwright_searches SET asked = :asked"), {"asked": asked})
        for machine, number in FRONT:
            put(connection, "front", search_key=1, machine=machine, number=number)
    if revision >= "0004":
        fill_artifacts(connection, now)


def fill_artifacts(connection, now):
    """Trial 1 is kept, in a file of two pieces; trial 2 waits."""
    for number, state in ((1, "READY"), (2, "QUEUED")):
        row = {"seeds": 3, "error": "", "done": 9, "total": 9, "step": "", "owner": ""}
        row |= {"state": state, "epoch": 1, "tries": 1, "created": now, "updated": now}
        put(connection, "artifacts", search_key=1, number=number, **row)
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    row = {"search_key": 1, "number": 1, "path": "model.safetensors", "size": len(CONTENT)}
    put(connection, "files", **row, sha256=sha256)
    for begin in range(0, len(CONTENT), PIECE):
        piece = CONTENT[begin : begin + PIECE]
        put(connection, "pieces", sha256=sha256, at=begin, data=piece)


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004"])
def test_data_of_an_earlier_version(url, revision):
    database = Database(read_url(url))
    at(database, revision)
    with database.write() as connection:
        fill(connection, revision, database.is_sqlite)
    store = open_store(url)
    with database.read() as connection:
        assert compare_metadata(migrate.migration_context(connection), Base.metadata) == []
        of = select(front.c.machine, front.c.number).order_by(front.c.number)
        kept = [tuple(row) for row in connection.execute(of)]
    database.close()
    assert kept == FRONT

    search = store.get_search("abc")
    assert (search.spec, search.state, search.created) == (SPEC, SearchState.RUNNING, TIME)
    assert (search.display_name, search.priority, search.revision) == ("mine", 0, 1)
    assert search.owner == ""  # nobody's: those see it who see everything
    assert [one.id for one in store.seen_by(None).list_searches(9).items] == ["abc"]
    assert store.seen_by("ada").list_searches(9).items == ()
    text, _ = store.access.create("ada", access.Scope.READ)
    assert store.access.caller_of(text).owner == "ada"
    assert search.counts == {TrialState.SUCCEEDED: 4, TrialState.FAILED: 1}
    assert store.create_search(SPEC, "r", "mine") == search  # the request is known
    events = store.events("abc", 0, 99)
    assert [event.sequence for event in events] == list(range(1, 18))
    assert {event.trial.rung for event in events if event.trial} == {0}

    metrics = [METRICS[name] for name in SPEC.objectives]
    for machine, best in (("m1:aa", [1, 2]), ("m1:bb", [3])):
        found = store.measured(Scope(machine=machine), metrics)
        assert sorted(place.number for place in found.rows(undominated(found.costs))) == best

    with pytest.raises(NotAllowed, match="one of m1:aa, m1:bb"):
        store.kept_front("abc")

    if revision >= "0004":
        assert store.artifacts.get("abc", 1).state is ArtifactState.READY
        path, size = "model.safetensors", len(CONTENT)
        found = [store.artifacts.piece("abc", 1, path, at)[1] for at in (0, PIECE, size)]
        assert b"".join(found) == CONTENT
        assert store.artifacts.claim("me", 60).trial.number == 2

    claim = store.claim("me", 60)  # and it goes on
    log = store.log(claim)
    assert [trial.number for trial in log.history()] == [0, 1, 2, 3, 4]
    assert len(log.events()) == 15
    details = {"machine": {"fingerprint": "m1:aa"}}
    better = Measurement({"quality": 0.6, "latency_ms": 1.5}, details)
    log.append(a_trial(5), a_trial(5).started(), a_trial(5).started().succeeded(better))
    assert store.events("abc", 17, 99)[-1].left == (1,)
    found = store.measured(Scope(machine="m1:aa"), metrics)
    assert sorted(place.number for place in found.rows(undominated(found.costs))) == [2, 5]
    store.close()


def test_a_new_database_is_that_of_the_last_version(url):
    open_store(url).close()
    database = Database(read_url(url))
    with database.read() as connection:
        assert compare_metadata(migrate.migration_context(connection), Base.metadata) == []
    database.close()
