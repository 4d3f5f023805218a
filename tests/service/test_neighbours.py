"""Several servers on one database from its first moment on, and Optuna's own tables in it: everyone
works, and nobody's tables are touched by another."""

import subprocess
import sys
from contextlib import ExitStack, closing

import optuna
import pytest
from alembic.autogenerate import compare_metadata
from sqlalchemy import text

from formwright.search import SearchSpec
from formwright.search.testing import a_measurement, a_trial
from formwright.service import Client, SearchState
from formwright.service.embedded import address_of, start_server, stop_server
from formwright.service.store import migrate, open_store
from formwright.service.store.engine import Database, read_url
from formwright.service.store.schema import Base

SERVERS = 3
PROCESSES = 8
COUNTS = SearchSpec(trials=4, objectives=("params", "flops"), sampler="random")


def rows(url, statement):
    with closing(Database(read_url(url))) as database, database.read() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def differences(url):
    with closing(Database(read_url(url))) as database, database.read() as connection:
        return compare_metadata(migrate.migration_context(connection), Base.metadata)


def schema_changes(url):
    """How often the tables were changed: SQLite counts, PostgreSQL keeps the transactions."""
    if url.startswith("postgresql"):
        ours = "relname LIKE 'formwright%' AND relkind IN ('r', 'i')"
        return rows(url, f"SELECT count(DISTINCT xmin::text) FROM pg_class WHERE {ours}")
    return rows(url, "PRAGMA schema_version")


@pytest.fixture
def other(url, tmp_path, request):
    """A database of the same kind that one alone has made."""
    made = request.getfixturevalue("postgresql")() if "postgresql" in url else tmp_path / "one.db"
    open_store(str(made)).close()
    return str(made)


# it has loaded what it needs before it becomes many, and so they open the database at once
OPENS = """
import os, sys

import psycopg
from formwright.service.store import migrate, open_store

ready, go = os.pipe()
for at in range(int(sys.argv[2])):
    if not os.fork():
        os.close(go)
        os.read(ready, 1)  # until the other end is closed
        open_store(sys.argv[1]).close()
        os._exit(0)
os.close(go)
ended = [os.wait()[1] for _ in range(int(sys.argv[2]))]
print(ended)
"""


def test_eight_processes_make_a_new_database_once(url, other):
    """As servers and schedulers do when they start."""
    command = [sys.executable, "-c", OPENS, url, str(PROCESSES)]
    done = subprocess.run(command, capture_output=True, text=True)

    assert (done.stdout, done.stderr) == (f"{[0] * PROCESSES}\n", "")
    check_made_once(url, other)


def check_made_once(url, other):
    assert schema_changes(url) == schema_changes(other)
    assert rows(url, "SELECT count(*) FROM formwright_alembic_version") == [(1,)]
    assert differences(url) == []


def test_servers_share_a_database_from_its_first_moment_on(url, other):
    with ExitStack() as stack:
        servers = [start_server(url, workers=0) for _ in range(SERVERS)]
        for server in servers:
            stack.callback(stop_server, server)
        addresses = [address_of(server) for server in servers]
        clients = [stack.enter_context(Client(address)) for address in addresses]
        made = clients[0].submit(COUNTS)
        for at, client in enumerate(clients):
            client.update(made.id, display_name=f"from {at}")
        seen = [client.get(made.id) for client in clients]
        ended = clients[-1].wait(made.id)
        watched = [[event.sequence for event in client.watch(made.id)] for client in clients]

    assert [server.returncode for server in servers] == [0] * SERVERS
    assert {search.display_name for search in seen} == {f"from {SERVERS - 1}"}
    assert (ended.state, ended.revision) == (SearchState.SUCCEEDED, 1 + SERVERS)
    assert watched == [list(range(1, ended.last_sequence + 1))] * SERVERS
    check_made_once(url, other)


def ours(url, request):
    """A search that is made, or is there; one more of its trials ends."""
    with closing(open_store(url)) as store:
        search = store.create_search(SearchSpec(), request)
        claim = store.claim("me", 60)
        log = store.log(claim)
        number = len(log.history())
        running = a_trial(number).started()
        log.append(a_trial(number), running, running.succeeded(a_measurement()))
        store.release("me")
        return [trial.number for trial in store.list_trials(search.id, 100).items]


def optunas(where):
    """A study that is made, or is there; one more of its trials ends."""
    study = optuna.create_study(storage=where, study_name="theirs", load_if_exists=True)
    trial = study.ask()
    study.tell(trial, trial.suggest_float("x", 0, 1))
    found = [trial.number for trial in study.get_trials()]
    study._storage.remove_session()
    study._storage._backend.engine.dispose()
    return found


@pytest.mark.parametrize("first", ["ours", "optunas"])
def test_optuna_in_the_same_database(url, first):
    where = str(read_url(url).render_as_string(hide_password=False))
    steps = {"ours": lambda: ours(url, "r"), "optunas": lambda: optunas(where)}
    order = [first, *(steps.keys() - {first})]

    assert [steps[who]() for who in order] == [[0], [0]]
    before = schema_of(url)
    assert [steps[who]() for who in order] == [[0, 1], [0, 1]]
    say_older(url)
    code = "import sys; from optuna.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "storage", "upgrade", "--storage", where]
    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert [steps[who]() for who in order] == [[0, 1, 2], [0, 1, 2]]
    new = [row[0] for row in schema_of(url) if row not in before]
    assert new == ["trials_study_id_key"]  # so there was an upgrade
    assert [row for row in schema_of(url) if row[0] not in new] == before
    assert differences(url) == []
    versions = ("alembic_version", "formwright_alembic_version")
    found = [rows(url, f"SELECT version_num FROM {name}") for name in versions]
    assert [len(version) for version in found] == [1, 1]
    assert found[0] != found[1]


def say_older(url):
    """Optuna's tables say that they are of its last version but one, which had an index less."""
    with closing(Database(read_url(url))) as database, database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v3.0.0.d'"))


def schema_of(url):
    """Tables with their columns, and indices, ours and theirs."""
    if not url.startswith("postgresql"):
        return rows(url, "SELECT name, sql FROM sqlite_master ORDER BY 1")
    of = "table_name, column_name, data_type FROM information_schema.columns"
    columns = rows(url, f"SELECT {of} WHERE table_schema = 'public' ORDER BY 1, 2")
    return columns + rows(url, "SELECT indexname, indexdef FROM pg_indexes ORDER BY 1, 2")
