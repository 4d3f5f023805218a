"""A real server in a process of its own, for each test module that asks for one."""

import pytest

from formwright.search import SearchSpec
from formwright.service import Client, local_server
from formwright.service.certs import authority, issue
from formwright.service.store import open_store

from .postgres import cluster

# what a trial may cost in a test: no code is generated, hardly anything is learnt
SMALL = SearchSpec(trials=3, steps=3, target="eager", batch=32)


@pytest.fixture
def path(tmp_path):
    """Where a store of one test's own may be."""
    return tmp_path / "store.db"


@pytest.fixture(scope="session")
def postgresql():
    """Makes databases in a PostgreSQL that is the tests' own."""
    with cluster() as database:
        yield database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, path):
    """Of a new database, of either kind."""
    return str(path) if request.param == "sqlite" else request.getfixturevalue("postgresql")()


@pytest.fixture
def store(url):
    """New, of either kind."""
    store = open_store(url)
    yield store
    store.close()


@pytest.fixture
def file_store(path):
    """A new one in a SQLite file, for tests that look into it."""
    store = open_store(str(path))
    yield store
    store.close()


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return tmp_path_factory.mktemp("server") / "searches.db"


@pytest.fixture(scope="module")
def server(database):
    """The address of a server whose scheduler evaluates in its own process."""
    with local_server(database, workers=0) as address:
        yield address


@pytest.fixture
def client(server):
    with Client(server) as client:
        yield client


@pytest.fixture(scope="session")
def small():
    return SMALL


class Certificates:
    """Files of an authority, and what it has signed: for 127.0.0.1, for another host, for a
    client."""

    def __init__(self, folder):
        by, _ = authority(folder)
        self.ca = str(folder / "ca.pem")
        hosts = ("127.0.0.1", "localhost")
        self.server = tuple(map(str, issue(folder, by, "server", "server", hosts, 30)))
        self.elsewhere = tuple(map(str, issue(folder, by, "server", "elsewhere", ("x.test",), 30)))
        self.client = tuple(map(str, issue(folder, by, "client", "someone", (), 30)))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))
