"""What a server says about itself: its health, which calls it knows, and whether it takes a token.

It must not know what the calls mean. Next: `checkup.py`; `host.py` answers.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from .client.remote import OPTIONS
from .client.trust import Trust
from .wire import search_pb2 as pb
from .wire import search_pb2_grpc as pb_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["SearchService"]
NOWHERE = "searches/0-doctor-asks"  # a search that is not
NOBODY = Trust()


@dataclass(frozen=True)
class Probed:
    """`health` is SERVING where all is well; `lacks` are our calls that it does not know, `more`
    those of its calls that we do not know. `token` is why a call with our token was not let in: a
    status code and what was said, both empty if it was; `without`, the same without a token."""

    health: str
    lacks: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    token: tuple[str, str] = ("", "")
    without: tuple[str, str] = ("", "")


def probe(server: str, timeout_s: float, trust: Trust = NOBODY) -> Probed | str:
    """Asks the server; a line that says why there is no answer. Raises SettingError for a file of
    ours that cannot be read."""
    with trust.channel(server, OPTIONS) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=SERVICE.full_name)
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(request, timeout=timeout_s)
        except grpc.RpcError as error:
            return str(error.details() or error.code().name)
        health = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        without = _asked(channel, NOBODY, timeout_s)
        let_in = _asked(channel, trust, timeout_s) if trust.token else without
        lacks, more = _calls(channel, trust, timeout_s)
    return Probed(health, lacks, more, let_in, without)


def _asked(channel: grpc.Channel, trust: Trust, timeout_s: float) -> tuple[str, str]:
    """Why a call was not let in: a code and what was said."""
    stub: Any = pb_grpc.SearchServiceStub(channel)
    request = pb.GetSearchRequest(name=NOWHERE)
    try:
        stub.GetSearch(request, timeout=timeout_s, metadata=trust.metadata())
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return error.code().name, str(error.details())
    return "", ""  # there is no such search, and the server has looked


def _calls(
    channel: grpc.Channel, trust: Trust, timeout_s: float
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which of our calls it lacks, and which it has that we do not know, by reflection."""
    patience = threading.Timer(timeout_s, channel.close)  # reflection takes no time limit
    patience.start()
    try:
        asking = grpc.intercept_channel(channel, _Showing(trust))
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(asking))
        theirs = set(pool.FindServiceByName(SERVICE.full_name).methods_by_name)
    except (grpc.RpcError, KeyError, ValueError):  # no reflection there, or too slow
        return (), ()
    finally:
        patience.cancel()
    ours = set(SERVICE.methods_by_name)
    return tuple(sorted(ours - theirs)), tuple(sorted(theirs - ours))


class _Showing(grpc.StreamStreamClientInterceptor):
    """Shows the token where the caller cannot."""

    def __init__(self, trust: Trust) -> None:
        self._metadata = trust.metadata()

    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(details._replace(metadata=self._metadata), requests)
