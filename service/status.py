"""Errors on the wire: what each exception is there, and which one it becomes again.

A status has a code, a message for people, `google.rpc.ErrorInfo` with a reason for programs and,
where a field is wrong, `google.rpc.BadRequest` that names it (AIP-193). The only place that knows
both sides. Next: `servicer.py` sends them, `client/` raises them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from ..errors import FormwrightError, one_line
from ..search import SpecError, UnknownNameError
from . import errors
from .redact import redacted

DOMAIN = "formwright"
DETAILS = "grpc-status-details-bin"
LONGEST = 1000  # bytes of a message; gRPC bounds the trailers of a call
AGAIN_S = 1  # after which it is worth to try again, where it is
CODES = grpc.StatusCode


@dataclass(frozen=True)
class Row:
    """`raised` is what clients raise for it."""

    reason: str
    code: grpc.StatusCode
    of: type[FormwrightError]
    raised: type[FormwrightError]


# the first row that fits
TABLE: tuple[Row, ...] = (
    Row("UNKNOWN_NAME", CODES.INVALID_ARGUMENT, UnknownNameError, errors.InvalidRequest),
    Row("INVALID_SPEC", CODES.INVALID_ARGUMENT, SpecError, errors.InvalidRequest),
    Row("OUT_OF_RANGE", CODES.OUT_OF_RANGE, errors.OutOfRange, errors.OutOfRange),
    Row("INVALID_REQUEST", CODES.INVALID_ARGUMENT, errors.InvalidRequest, errors.InvalidRequest),
    Row("NOT_FOUND", CODES.NOT_FOUND, errors.NotFound, errors.NotFound),
    Row("REQUEST_ID_REUSED", CODES.ALREADY_EXISTS, errors.AlreadyExists, errors.AlreadyExists),
    Row("WRONG_STATE", CODES.FAILED_PRECONDITION, errors.NotAllowed, errors.NotAllowed),
    Row("ETAG_MISMATCH", CODES.ABORTED, errors.Stale, errors.Stale),
    Row("UNAUTHENTICATED", CODES.UNAUTHENTICATED, errors.Unauthenticated, errors.Unauthenticated),
    Row("SCOPE_TOO_NARROW", CODES.PERMISSION_DENIED, errors.Forbidden, errors.Forbidden),
    Row("TOO_MANY_CALLS", CODES.RESOURCE_EXHAUSTED, errors.TooMany, errors.TooMany),
    Row("DATABASE_AWAY", CODES.UNAVAILABLE, errors.DatabaseError, errors.Unavailable),
    Row("TOO_LATE", CODES.DEADLINE_EXCEEDED, errors.TooLate, errors.Unavailable),
    Row("STOPPING", CODES.UNAVAILABLE, errors.Stopping, errors.Unavailable),
)
REASONS = {row.reason: row for row in TABLE}
# where there are no details: from something between, or the client's own library
BY_CODE: dict[grpc.StatusCode, type[FormwrightError]] = {
    CODES.INVALID_ARGUMENT: errors.InvalidRequest,
    CODES.OUT_OF_RANGE: errors.OutOfRange,
    CODES.NOT_FOUND: errors.NotFound,
    CODES.ALREADY_EXISTS: errors.AlreadyExists,
    CODES.FAILED_PRECONDITION: errors.NotAllowed,
    CODES.ABORTED: errors.Stale,
    CODES.UNAUTHENTICATED: errors.Unauthenticated,
    CODES.PERMISSION_DENIED: errors.Forbidden,
    CODES.UNAVAILABLE: errors.Unavailable,
    CODES.CANCELLED: errors.Unavailable,  # not by us: the server went away meanwhile
    CODES.DEADLINE_EXCEEDED: errors.Unavailable,
    CODES.RESOURCE_EXHAUSTED: errors.InvalidRequest,  # a message that is too large
}


def row_of(error: Exception) -> Row | None:
    """None for what must not be seen from outside."""
    return next((row for row in TABLE if isinstance(error, row.of)), None)


def details_of(error: Exception, row: Row, said: str) -> tuple[tuple[str, bytes], ...]:
    """The trailers of the call, whose message is what is `said`."""
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=row.reason, domain=DOMAIN)]
    if field := getattr(error, "field", ""):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=one_line(field, 200), description=said
        )
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if row.code in (CODES.UNAVAILABLE, CODES.RESOURCE_EXHAUSTED):
        details.append(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=AGAIN_S)))
    status = status_pb2.Status(code=row.code.value[0], message=said)
    for detail in details:
        status.details.append(_packed(detail))
    return ((DETAILS, status.SerializeToString()),)


def message_of(error: Exception) -> str:
    text = redacted(one_line(str(error), LONGEST))  # some errors repeat what was given
    return text.encode()[:LONGEST].decode(errors="ignore")


def raised_by(call: Any) -> tuple[type[FormwrightError], str]:
    """Which exception a failed call stands for, and the field that was wrong, if one was."""
    kind, field = BY_CODE.get(call.code(), errors.InternalError), ""
    for detail in _details(call):
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info) and info.domain == DOMAIN and info.reason in REASONS:
            kind = REASONS[info.reason].raised
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
    return kind, field


def _details(call: Any) -> list[AnyMessage]:
    for name, value in call.trailing_metadata() or ():
        if name == DETAILS:
            try:
                return list(status_pb2.Status.FromString(value).details)
            except DecodeError:
                return []
    return []


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
