"""Messages to a server and back. Requests whose answer was lost are sent again: those that change
something carry an id, so that their effect is there once.

It must not know what messages mean. What both clients share stands above, the blocking form below;
`aio_wires.py` has the other. Next: `sync.py`.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, Protocol

import grpc

from ...errors import FormwrightError
from .. import errors
from ..status import raised_by
from ..wire import search_pb2_grpc as pb_grpc
from .mismatch import mismatch
from .trust import Trust

RETRIES_S = (0.05, 0.1, 0.2, 0.4, 0.8)  # before a request is sent again
OPTIONS = (
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.initial_reconnect_backoff_ms", 100),  # a server is up again in a second, and clients
    ("grpc.max_reconnect_backoff_ms", 1_000),  # would else look for it after up to two minutes
    ("grpc.max_receive_message_length", 64 << 20),  # a page with all its records
)


def may_repeat(error: Any) -> bool:
    """Whether the same call may have another answer: the server is away, or has had too many."""
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return True
    return raised_by(error)[0] is errors.TooMany


def exception_of(error: Any, server: str, trust: Trust) -> FormwrightError:
    """The exception that a status stands for. Where no connection came about it looks for the
    reason, and blocks for a moment."""
    kind, field = raised_by(error)
    if kind is errors.Unavailable:
        why = error.details() or ""
        unconnected = error.code() is grpc.StatusCode.UNAVAILABLE and not error.trailing_metadata()
        if unconnected and (reason := mismatch(server, trust)):
            return kind(f"no answer from {server}: {reason}")
        why = "" if why.startswith("failed to connect") else f" ({why})"
        return kind(f"no answer from {server}{why}; is `formwright serve` running there?")
    made = kind(error.details())
    if isinstance(made, errors.InvalidRequest):
        made.field = field
    return made


def check_open(wire: HasServer) -> None:
    """Raises Unavailable if it is closed."""
    if wire.closed:
        raise errors.Unavailable(f"the client of {wire.server} is closed")


class Patience:
    """How long somebody waits for a server that is away, from the first failure on."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def renew(self) -> None:
        """The server has said something."""
        self._since = None

    def is_over(self) -> bool:
        """Asked after a failure."""
        now = time.monotonic()
        self._since = self._since or now
        return now - self._since > self._seconds


class HasServer(Protocol):
    """What is asked, and whether it still is."""

    server: str
    closed: bool


class Wire(Protocol):
    """Who answers. What is raised are the exceptions of `errors.py`."""

    server: str
    closed: bool

    def unary(self, method: str, request: Any) -> Any: ...

    def stream(self, method: str, request: Any) -> Generator[Any, None, None]: ...

    def close(self) -> None: ...


class Remote:
    """A channel to one server."""

    def __init__(self, server: str, timeout_s: float, trust: Trust) -> None:
        self.server, self._timeout_s, self._trust = server, timeout_s, trust
        self.closed, self._metadata = False, trust.metadata()
        self._channel = trust.channel(server, OPTIONS)
        self._stub: Any = pb_grpc.SearchServiceStub(self._channel)

    def unary(self, method: str, request: Any) -> Any:
        check_open(self)
        until = time.monotonic() + self._timeout_s
        for pause in (*RETRIES_S, None):
            try:
                left = max(0.0, until - time.monotonic())
                call = getattr(self._stub, method)
                return call(request, timeout=left, metadata=self._metadata)
            except grpc.RpcError as error:
                again = may_repeat(error) and pause is not None and not self.closed
                if not again or time.monotonic() + (pause or 0) > until:
                    raise exception_of(error, self.server, self._trust) from None
                time.sleep(pause or 0)
        raise AssertionError("the last one raises")

    def stream(self, method: str, request: Any) -> Generator[Any, None, None]:
        """Raises Unavailable where the server goes away; what was said until then stands."""
        check_open(self)
        call = getattr(self._stub, method)(request, metadata=self._metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise exception_of(error, self.server, self._trust) from None
        finally:
            call.cancel()

    def close(self) -> None:
        self.closed = True
        self._channel.close()
