"""What is told of each call: labels for what it logs, one line at its end, and its numbers.

    with calls.of("GetSearch", pb.GetSearchRequest) as call:
        call.request = request  # once it is there
        call.by(owner, token)  # once it is known
        call.refused(code, reason, said)  # if it is, before gRPC is told

It is on the way of every call, so it does little: the line, and what the request is about, are made
only if somebody reads them. It must not know grpc. Next: `metrics.py`, `labels.py`, `logs.py`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

from google.protobuf.message import DecodeError

from . import names
from .labels import add, labels
from .metrics import Metrics
from .rpc.methods import WATCH

log = logging.getLogger("formwright.access")

CHECK = "Health/Check"
LASTING = frozenset({WATCH})  # as long as a client wants
QUIET = frozenset({CHECK})  # somebody asks every few seconds


class Call:
    """One call, from `with` to its end. `id` is in everything that it logs, `request` are the bytes
    of its message."""

    __slots__ = ("_calls", "_code", "_kind", "_labels", "_reason", "_said", "_since",
                 "id", "method", "request")  # fmt: skip

    def __init__(self, calls: Calls, method: str, kind: Any) -> None:
        self._calls, self._kind = calls, kind
        self.request = b""
        self.id, self.method = secrets.token_hex(6), method
        self._code = self._reason = self._said = ""
        self._labels = labels(call=self.id, method=method)

    def by(self, owner: str, token: str) -> None:
        """Who has made it, by the id of a token; nobody where none is asked for."""
        if token:
            add(caller=f"{owner}/{token}")

    def refused(self, code: str, reason: str, said: str = "") -> None:
        """How it ends: the name of a status code, and why."""
        self._code, self._reason, self._said = code, reason, said
        self._calls.metrics.refused(reason)

    def __enter__(self) -> Call:
        self._labels.__enter__()
        if self.method not in LASTING:
            self._calls.metrics.in_flight += 1
        self._since = time.perf_counter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        seconds = time.perf_counter() - self._since
        code = self._code or _code_of(error)
        lasting = self.method in LASTING
        if not lasting:
            self._calls.metrics.in_flight -= 1
        self._calls.metrics.ended(self.method, code, None if lasting else seconds)
        level = logging.DEBUG if self.method in QUIET else logging.INFO
        if log.isEnabledFor(level):
            self._log(level, code, seconds)
        self._labels.__exit__(kind, error, trace)

    def _log(self, level: int, code: str, seconds: float) -> None:
        if self._kind is not None:
            with suppress(DecodeError):  # then it is about nothing
                about(self._kind.FromString(self.request))
        milliseconds = round(seconds * 1000, 3)
        more: dict[str, object] = {"code": code, "milliseconds": milliseconds}
        why = ""
        if self._reason:
            more["reason"] = self._reason
            why = f", {self._reason}: {self._said}" if self._said else f", {self._reason}"
        log.log(level, "%s in %.1f ms%s", code, milliseconds, why, extra=more)


class Calls:
    """Makes them."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def of(self, method: str, kind: Any = None) -> Call:
        """A call of a method of ours. `kind` is the class of its message, which says what it is
        about."""
        return Call(self, method, kind)


def about(message: Any) -> None:
    """Adds the search, trial or artefact that a request or an answer names to the labels."""
    for field in ("name", "search", "trial", "artifact"):
        value = getattr(message, field, "")
        name = getattr(value, "name", value)
        if isinstance(name, str) and (ids := names.ids_in(name)):
            add(**ids)
            return


def _code_of(error: BaseException | None) -> str:
    if error is None:
        return "OK"
    gone = isinstance(error, asyncio.CancelledError)  # the client, or its deadline
    return "CANCELLED" if gone else "UNKNOWN"
