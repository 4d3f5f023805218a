"""What a server says about itself: its health, and which calls it knows, by reflection.

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

SERVICE = pb.DESCRIPTOR.services_by_name["SearchService"]


@dataclass(frozen=True)
class Probed:
    """`health` is SERVING where all is well; `lacks` are our calls that it does not know, `more`
    those of its calls that we do not know."""

    health: str
    lacks: tuple[str, ...] = ()
    more: tuple[str, ...] = ()


def probe(server: str, timeout_s: float, trust: Trust) -> Probed | str:
    """Asks the server; a line that says why there is no answer."""
    with trust.channel(server, OPTIONS) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=SERVICE.full_name)
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(request, timeout=timeout_s)
        except grpc.RpcError as error:
            return str(error.details() or error.code().name)
        health = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        patience = threading.Timer(timeout_s, channel.close)  # reflection takes no time limit
        patience.start()
        try:
            pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
            theirs = set(pool.FindServiceByName(SERVICE.full_name).methods_by_name)
        except (grpc.RpcError, KeyError, ValueError):  # no reflection there, or too slow
            return Probed(health)
        finally:
            patience.cancel()
    ours = set(SERVICE.methods_by_name)
    return Probed(health, tuple(sorted(ours - theirs)), tuple(sorted(theirs - ours)))
