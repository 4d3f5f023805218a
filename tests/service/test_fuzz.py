"""Messages that nobody would send: no crash, no INTERNAL, no UNKNOWN, and nothing is stored of what
was refused."""

import random

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor as Field

from formwright.search import SearchSpec
from formwright.search.testing import a_measurement, a_trial
from formwright.service.records import SearchState
from formwright.service.rpc.methods import METHODS, SERVICE
from formwright.service.store import open_store
from formwright.service.store.engine import Database, read_url
from formwright.service.store.schema import Base

from .servers import serving

ROUNDS = 60  # of each method
CODES = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
TEXTS = (
    *("", " ", "\0", "'; DROP TABLE formwright_searches; --", "' OR '1'='1", "%", "_", "\\"),
    *("searches/", "searches/..", "searches/../../etc/passwd", "architectures/a1:" + "0" * 64),
    *("state = RUNNING", "state = ", "((((((", "NOT " * 50, "metrics.quality > 0 AND", "a" * 5000),
    *("quality", "params", "quality desc", "metrics.quality desc", "create_time", "number"),
    *('space = "x" OR 1 = 1', "priority > 99999999999999999999", "metrics.params < 1e999"),
    *('create_time > "2026"', "bnVsbA.000000000000", "WzEsMV0.0123456789ab", "r1", "r0", "\u202e"),
    *(
        "2e6 tokens",
        "nan flops",
        "depth=2",
        "width=16|32",
        "é" * 300,
        "metaformer",
        "digits",
        "tpe",
    ),
)
NUMBERS = (0, 1, -1, 2, 7, 200, 201, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.5, 1e308, float("inf"), float("-inf"), float("nan"))


def filled(rng, message, depth=0):
    """Random fields of the message, from what is odd."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.4:
            continue
        many = field.is_repeated
        if field.type == Field.TYPE_MESSAGE:
            if depth > 3:
                continue
            for _ in range(rng.randint(0, 2) if many else 1):
                part = getattr(message, field.name)
                filled(rng, part.add() if many else part, depth + 1)
            continue
        values = [value(rng, field) for _ in range(rng.randint(0, 3) if many else 1)]
        if many:
            getattr(message, field.name).extend(values)
        else:
            setattr(message, field.name, values[0])
    return message


def value(rng, field):
    if field.type == Field.TYPE_STRING:
        known = NAMES[rng.randrange(len(NAMES))] if rng.random() < 0.4 else rng.choice(TEXTS)
        return known
    if field.type == Field.TYPE_BOOL:
        return rng.random() < 0.5
    if field.type == Field.TYPE_DOUBLE:
        return rng.choice(FLOATS)
    if field.type == Field.TYPE_BYTES:
        return rng.randbytes(rng.randint(0, 20))
    wide = field.type == Field.TYPE_INT64
    return rng.choice(NUMBERS if wide else [n for n in NUMBERS if abs(n) <= 2**31 - 1])


NAMES = []  # of what there is


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def place(request, tmp_path_factory):
    url = str(tmp_path_factory.mktemp("fuzz") / "store.db")
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql")()
    store = open_store(url)
    NAMES.clear()
    for end in (SearchState.SUCCEEDED, None):
        search = store.create_search(SearchSpec(objectives=("quality", "params")), "")
        claim = store.claim("me", 600)
        log = store.log(claim)
        for number in range(3):
            started = a_trial(number).started()
            log.append(a_trial(number), started, started.succeeded(a_measurement(number / 3)))
        if end:
            store.finish(claim, end)
        NAMES.extend([f"searches/{search.id}", f"searches/{search.id}/trials/1"])
    NAMES.append(f"architectures/{a_trial(1).architecture.fingerprint()}")
    store.close()
    return url


@pytest.fixture(scope="module")
def channel(place):
    with serving(place) as address, grpc.insecure_channel(address) as channel:
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
        channel.unary_unary(f"/{SERVICE}/{name}")(request, timeout=60)
    except grpc.RpcError as error:
        refused = error
    else:
        return None
    assert "Traceback" not in refused.details()
    assert "\n" not in refused.details()
    assert "sqlalchemy" not in refused.details().lower()
    return refused.code()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_odd_messages(channel, place, method):
    rng = random.Random(f"odd {method.name}")
    refused = 0
    for _ in range(ROUNDS):
        request = filled(rng, method.request()).SerializeToString()
        before = contents(place) if rng.random() < 0.1 else None
        code = sent(channel, method.name, request)
        assert code is None or code in CODES, (code, request)
        refused += code is not None
        if code is not None and before is not None:
            assert contents(place) == before
    assert refused or not method.request.DESCRIPTOR.fields


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_bytes_that_are_no_message(channel, method):
    rng = random.Random(f"bytes {method.name}")
    for _ in range(ROUNDS // 2):
        whole = bytearray(filled(rng, method.request()).SerializeToString() or b"\x0a\x03abc")
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(whole))
            change = rng.choice(["flip", "cut", "add"])
            if change == "flip":
                whole[at] ^= 1 << rng.randrange(8)
            elif change == "cut" and at:
                del whole[at:]
            else:
                whole[at:at] = rng.randbytes(rng.randint(1, 9))
        code = sent(channel, method.name, bytes(whole))
        assert code is None or code in CODES, (code, bytes(whole))


def texts(message, path=()):
    """Paths of all fields of text in it."""
    for field in message.DESCRIPTOR.fields:
        here = (*path, field.name)
        if field.type == Field.TYPE_STRING and not field.is_repeated:
            yield here
        elif field.type == Field.TYPE_MESSAGE and not field.is_repeated and len(here) < 3:
            yield from texts(getattr(message, field.name), here)


HARD = (
    "\0",
    "a\0b",
    'space = "\0"',
    'error : "\0"',
    "number > 9999999999",
    "priority = -2147483648",
)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_hard_texts_in_each_field(channel, method):
    """The rest of the message makes sense, so that the text gets as far as it can."""
    for path in texts(method.request()):
        for text in HARD:
            request = method.request()
            for name, known in (("name", NAMES[0]), ("search", NAMES[0])):
                field = request.DESCRIPTOR.fields_by_name.get(name)
                if field is not None and field.type == Field.TYPE_STRING:
                    known = NAMES[1] if method.name == "GetTrial" else known
                    setattr(request, name, known)
            part = request
            for name in path[:-1]:
                part = getattr(part, name)
            setattr(part, path[-1], text)
            code = sent(channel, method.name, request.SerializeToString())
            assert code is None or code in CODES, (path, text, code)


def test_what_is_too_large_is_refused(channel):
    request = b"\x0a" + b"\x80\x80\x80\x04" + b"a" * 2**23
    assert sent(channel, "GetSearch", request) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_what_is_not_served(channel):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{SERVICE}/Nothing")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
