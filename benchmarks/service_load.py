"""What loads a gRPC server in `service.py`: calls in flight, and the times that they took.

Messages pass as bytes, so that the client is the same for every server. It must not know databases.
Next: `service_servers.py`, which it calls; `service_watch.py`, which reads streams.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

IN_FLIGHT = 32
SETTLE_S = 0.1  # of a turn, which does not count
LABEL = 1000  # a field that no message has: what only carries it means the same
OURS = "/formwright.v1.SearchService"
ECHO = "/echo.Echo/Empty"
Metadata = tuple[tuple[str, str], ...] | None


@dataclass(frozen=True)
class Load:
    """What a turn found: answers a second, and milliseconds of each."""

    rate: float
    ms: tuple[float, ...]

    def row(self) -> dict[str, float]:
        """Without the single times."""
        if not self.ms:
            raise RuntimeError("no call of this turn began and ended in it")
        at = {f"p{share:g}_ms": round(percentile(self.ms, share), 3) for share in (50, 99, 99.9)}
        return {"rate": round(self.rate, 1), **at}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` percent do not exceed.

    >>> percentile([3, 1, 2], 50), percentile([3, 1, 2], 99)
    (2, 3)
    """
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * share // 100) - 1)]


def labelled(request: bytes, number: int) -> bytes:
    """The same request, but other bytes for each number: nothing kept answers it.

    >>> labelled(b"", 5).hex()
    'c03e05'
    """
    return request + _varint(LABEL << 3) + _varint(number)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


@asynccontextmanager
async def channel(address: str, credentials: grpc.ChannelCredentials | None = None) -> Any:
    """A connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    open_one = grpc.aio.insecure_channel
    if credentials is not None:
        open_one = partial(grpc.aio.secure_channel, credentials=credentials)
    async with open_one(address, options=options) as made:
        await made.channel_ready()
        yield made


async def closed_loop(
    made: grpc.aio.Channel,
    method: str,
    requests: Iterator[bytes],
    seconds: float,
    in_flight: int = IN_FLIGHT,
    metadata: Metadata = None,
) -> Load:
    """So many callers, each of which sends its next request when the last one was answered."""
    call = made.unary_unary(method)
    clock, spans = time.perf_counter, []
    begin = clock() + SETTLE_S
    end = begin + seconds

    async def caller() -> None:
        while (sent := clock()) < end:
            await call(next(requests), metadata=metadata)
            spans.append((sent, clock()))

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    counted = [(b - a) * 1e3 for a, b in spans if b >= begin]
    done = sum(begin <= b < end for _, b in spans)
    return Load(done / seconds, tuple(counted))


async def one_by_one(
    made: grpc.aio.Channel,
    method: str,
    requests: Iterator[bytes],
    count: int,
    seconds: float,
    before: Callable[[], object] | None = None,
) -> list[float]:
    """Milliseconds of so many calls, one after the other, or of as many as the seconds allow; what
    is done before each does not count, nor does the first."""
    call, ms = made.unary_unary(method), []
    for request in itertools.islice(requests, count + 1):
        if before:
            before()
        sent = time.perf_counter()
        await call(request)
        ms.append((time.perf_counter() - sent) * 1e3)
        if len(ms) == 1:
            end = time.perf_counter() + seconds
        elif time.perf_counter() > end:
            break
    return ms[1:]
