"""Messages that nobody would send: odd fields, bytes that are no message, and what is no HTTP/2.

Used by the tests in small and by benchmarks/fuzz_service.py at length. It must not know grpc.
Next: `rpc/methods.py`, what is sent to.
"""

from __future__ import annotations

import random
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field

from ..search import Measurement, SearchSpec, Trial
from .errors import InternalError
from .records import SearchState
from .store import Store

# what a server may answer, beside an answer
REFUSALS = frozenset(
    {
        "INVALID_ARGUMENT",
        "OUT_OF_RANGE",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "FAILED_PRECONDITION",
        "ABORTED",
        "RESOURCE_EXHAUSTED",
    }
)
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
        "spec.json",
        "../spec.json",
        "digits",
        "tpe",
    ),
)
NUMBERS = (0, 1, -1, 2, 7, 200, 201, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.5, 1e308, float("inf"), float("-inf"), float("nan"))


# that are taken for something else somewhere on their way
HARD = (
    "\0",
    "a\0b",
    'space = "\0"',
    'error : "\0"',
    "number > 9999999999",
    "priority = -2147483648",
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEEPEST = 4  # messages in messages
FIRST = 2**31 - 1


def stocked(store: Store, trials: Sequence[tuple[Trial, Measurement]]) -> list[str]:
    """Names of what is there afterwards: a search that has ended and one that runs, each with these
    trials, an artefact of the first, and an architecture."""
    names = []
    for end in (SearchState.SUCCEEDED, None):
        spec = SearchSpec(objectives=("quality", "params"))
        search = store.create_search(spec, "", priority=FIRST)
        claim = store.claim("me", 600)
        while claim is not None and claim.search.id != search.id:  # an older one, resumed
            claim = store.claim("me", 600)
        if claim is None:
            raise InternalError(f"the search {search.id} cannot be claimed")
        log = store.log(claim)
        for trial, measured in trials:
            log.append(trial, trial.started(), trial.started().succeeded(measured))
        if end:
            store.finish(claim, end)
        names += [f"searches/{search.id}", f"searches/{search.id}/trials/1"]
    id = names[0].removeprefix("searches/")
    _keep(store, id)
    names.append(f"searches/{id}/trials/1/artifact")
    return [*names, f"architectures/{trials[1][0].architecture.fingerprint()}"]


def _keep(store: Store, id: str) -> None:
    """Trial 1 of the search has an artefact, with one file; older ones that wait have failed."""
    store.artifacts.create(id, 1, 1)
    while (claim := store.artifacts.claim("me", 600)) is not None:
        if claim.search_id != id:
            store.artifacts.fail(claim, "nobody makes it")
            continue
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "spec.json").write_text("{}" * 200_000, encoding="utf-8")
            store.artifacts.finish(claim, Path(folder))


def odd(
    rng: random.Random, message: Any, names: Sequence[str], share: float = 0.6, depth: int = 0
) -> Any:
    """Random fields of the message, a `share` of them, from what is odd, and from names that there
    are."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() >= share:
            continue
        many = field.is_repeated
        if field.type == Field.TYPE_MESSAGE:
            if depth >= DEEPEST:
                continue
            for _ in range(rng.randint(0, 2) if many else 1):
                part = getattr(message, field.name)
                odd(rng, part.add() if many else part, names, share, depth + 1)
            continue
        values = [_value(rng, field, names) for _ in range(rng.randint(0, 3) if many else 1)]
        if many:
            getattr(message, field.name).extend(values)
        else:
            setattr(message, field.name, values[0])
    return message


def _value(rng: random.Random, field: Field, names: Sequence[str]) -> Any:
    if field.type == Field.TYPE_STRING:
        return rng.choice(names) if rng.random() < 0.4 else rng.choice(TEXTS)
    if field.type == Field.TYPE_BOOL:
        return rng.random() < 0.5
    if field.type == Field.TYPE_DOUBLE:
        return rng.choice(FLOATS)
    if field.type == Field.TYPE_BYTES:
        return rng.randbytes(rng.randint(0, 20))
    wide = field.type == Field.TYPE_INT64
    return rng.choice(NUMBERS if wide else [n for n in NUMBERS if abs(n) <= 2**31 - 1])


def mutated(rng: random.Random, message: bytes) -> bytes:
    """Some bits turned, some bytes more or less."""
    whole = bytearray(message or b"\x0a\x03abc")
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(whole))
        change = rng.choice(["flip", "cut", "add"])
        if change == "flip":
            whole[at] ^= 1 << rng.randrange(8)
        elif change == "cut" and at:
            del whole[at:]
        else:
            whole[at:at] = rng.randbytes(rng.randint(1, 9))
    return bytes(whole)


def texts(message: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all fields of text in it."""
    for field in message.DESCRIPTOR.fields:
        here = (*path, field.name)
        if field.type == Field.TYPE_STRING and not field.is_repeated:
            yield here
        elif field.type == Field.TYPE_MESSAGE and not field.is_repeated and len(here) < 3:
            yield from texts(getattr(message, field.name), here)


def sensible(request: Any, names: Sequence[str]) -> Any:
    """The request with a name where it must have one, so that it gets as far as it can."""
    for name in ("name", "search", "trial"):
        field = request.DESCRIPTOR.fields_by_name.get(name)
        if field is not None and field.type == Field.TYPE_STRING:
            at = {"GetTrialRequest": 1, "CreateArtifactRequest": 1, "GetArchitectureRequest": -1}
            at |= dict.fromkeys(("GetArtifactRequest", "DownloadArtifactRequest"), 4)
            setattr(request, name, names[at.get(request.DESCRIPTOR.name, 0)])
        elif field is not None:  # the search that is to be updated
            request.search.name, request.search.display_name = names[0], "renamed"
            request.update_mask.paths[:] = ["display_name"]
    return request


def hard(request: Any, path: tuple[str, ...], text: str, names: Sequence[str]) -> bytes:
    """The text in this field; the rest makes sense."""
    part = sensible(request, names)
    for name in path[:-1]:
        part = getattr(part, name)
    setattr(part, path[-1], text)
    encoded: bytes = request.SerializeToString()
    return encoded


def garbage(rng: random.Random, port: int) -> None:
    """A connection that speaks no HTTP/2, or speaks it badly: bytes of any kind, frames of any kind
    and length behind a right beginning, or a beginning and nothing more."""
    frame = rng.randint(0, 40).to_bytes(3, "big") + rng.randbytes(6)
    settings = b"\0\0\0\x04\0\0\0\0\0"
    sent = rng.choice(
        [
            rng.randbytes(rng.randint(1, 2000)),
            PREFACE[: rng.randint(1, len(PREFACE))],
            PREFACE + rng.randbytes(rng.randint(1, 500)),
            PREFACE + settings + frame + rng.randbytes(rng.randint(0, 60)),
            PREFACE + settings + mutated(rng, frame + rng.randbytes(40)) * rng.randint(1, 20),
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ]
    )
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
        peer.sendall(sent)
        if rng.random() < 0.2:  # and hears what comes back
            peer.settimeout(0.05)
            peer.recv(4096)
