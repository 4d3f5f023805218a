"""Messages that nobody would send: no crash, no INTERNAL, no UNKNOWN, and nothing is stored of what
was refused."""

import random

import grpc
import pytest

from formwright.search.testing import a_measurement, a_trial
from formwright.service.rpc.methods import METHODS, SERVICE, STREAMS
from formwright.service.store import open_store
from formwright.service.store.engine import Database, read_url
from formwright.service.store.schema import Base
from formwright.service.testing_fuzz import (
    HARD,
    REFUSALS,
    garbage,
    hard,
    mutated,
    odd,
    stocked,
    texts,
)

from .servers import serving

ROUNDS = 60  # of each method
STREAMED = {stream.name for stream in STREAMS}
CODES = {grpc.StatusCode[name] for name in REFUSALS}
NAMES = []  # of what there is


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def place(request, tmp_path_factory):
    url = str(tmp_path_factory.mktemp("fuzz") / "store.db")
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")()
    store = open_store(url)
    NAMES.clear()
    NAMES.extend(stocked(store, [(a_trial(n), a_measurement(n / 3)) for n in range(3)]))
    store.close()
    return url


@pytest.fixture(scope="module")
def address(place):
    with serving(place) as address:
        yield address


@pytest.fixture(scope="module")
def channel(address):
    with grpc.insecure_channel(address) as channel:
        yield channel


def contents(url):
    database = Database(read_url(url))
    with database.read() as connection:
        found = {t.name: connection.execute(t.select()).all() for t in Base.metadata.sorted_tables}
    database.close()
    return found


def sent(channel, name, request):
    """The code; None for an answer."""
    try:
        if name in STREAMED:
            for _ in channel.unary_stream(f"/{SERVICE}/{name}")(request, timeout=60):
                pass
        else:
            channel.unary_unary(f"/{SERVICE}/{name}")(request, timeout=60)
    except grpc.RpcError as error:
        refused = error
    else:
        return None
    assert "Traceback" not in refused.details()
    assert "\n" not in refused.details()
    assert "sqlalchemy" not in refused.details().lower()
    return refused.code()


@pytest.mark.parametrize("method", [*METHODS, *STREAMS], ids=lambda method: method.name)
def test_odd_messages(channel, place, method):
    rng = random.Random(f"odd {method.name}")
    refused = 0
    for _ in range(ROUNDS):
        request = odd(rng, method.request(), NAMES).SerializeToString()
        before = contents(place) if rng.random() < 0.1 else None
        code = sent(channel, method.name, request)
        assert code is None or code in CODES, (code, request)
        refused += code is not None
        if code is not None and before is not None:
            assert contents(place) == before
    assert refused or not method.request.DESCRIPTOR.fields


@pytest.mark.parametrize("method", [*METHODS, *STREAMS], ids=lambda method: method.name)
def test_bytes_that_are_no_message(channel, method):
    rng = random.Random(f"bytes {method.name}")
    for _ in range(ROUNDS // 2):
        request = mutated(rng, odd(rng, method.request(), NAMES).SerializeToString())
        code = sent(channel, method.name, request)
        assert code is None or code in CODES, (code, request)


@pytest.mark.parametrize("method", [*METHODS, *STREAMS], ids=lambda method: method.name)
def test_hard_texts_in_each_field(channel, method):
    for path in texts(method.request()):
        for text in HARD:
            request = hard(method.request(), path, text, NAMES)
            code = sent(channel, method.name, request)
            assert code is None or code in CODES, (path, text, code)


def test_what_is_too_large_is_refused(channel):
    request = b"\x0a" + b"\x80\x80\x80\x04" + b"a" * 2**23
    assert sent(channel, "GetSearch", request) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_what_is_no_http2_keeps_nobody_from_being_served(address, channel):
    rng, port = random.Random("garbage"), int(address.rpartition(":")[2])
    for _ in range(200):
        garbage(rng, port)

    assert sent(channel, "ListSpaces", b"") is None
    with grpc.insecure_channel(address) as fresh:
        assert sent(fresh, "ListTasks", b"") is None


def test_what_is_not_served(channel):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{SERVICE}/Nothing")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
