"""What TLS and tokens cost: the same reads from the same server, in the open and secured.

    python benchmarks/service_secure.py [--rounds 7] [--out FILE]

A read that was asked before, `GetSearch`, with 32 in flight: where an answer takes longest to make
nothing of this would be seen. Servers are processes of their own and take turns; ratios are those
of a round.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import measure
from service_load import OURS, channel, closed_loop
from service_servers import beside

from formwright.search import SearchSpec
from formwright.service.access import Scope
from formwright.service.certs import authority, issue
from formwright.service.store import open_store
from formwright.service.wire import search_pb2 as pb

OUT = measure.MEASUREMENTS / "service_secure.json"
KINDS = ("open", "tokens", "TLS", "TLS and tokens")


async def rounds(folder: Path, count: int, seconds: float) -> list[dict[str, dict[str, float]]]:
    """Rows of `Load` by kind, for each round."""
    by, _ = authority(folder)
    certificate, key = issue(folder, by, "server", "server", ("127.0.0.1",), 1)
    database = str(folder / "searches.db")
    store = open_store(database)
    id = store.seen_by("alice").create_search(SearchSpec(), "").id
    token, _ = store.access.create("alice", Scope.READ)
    store.close()
    request = pb.GetSearchRequest(name=f"searches/{id}").SerializeToString()
    trusted = grpc.ssl_channel_credentials((folder / "ca.pem").read_bytes())
    sent = (("authorization", f"Bearer {token}"),)
    found = []
    async with AsyncExitStack() as stack:
        channels: dict[str, Any] = {}
        for kind in KINDS:
            more: dict[str, Any] = {"tokens": "tokens" in kind}
            more |= {"tls": (str(certificate), str(key))} if "TLS" in kind else {}
            address = stack.enter_context(beside("ours", database=database, **more))
            made = channel(address, trusted if "TLS" in kind else None)
            channels[kind] = await stack.enter_async_context(made)
        for at in range(count + 1):
            row = {}
            for kind in KINDS[at % 4 :] + KINDS[: at % 4]:
                requests, metadata = itertools.repeat(request), sent if "tokens" in kind else None
                load = await closed_loop(
                    channels[kind], f"{OURS}/GetSearch", requests, seconds, metadata=metadata
                )
                row[kind] = load.row()
            found.append(row)
    return found[1:]  # the first one warms up


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(rounds(Path(folder), given.rounds, given.seconds))
    table = {}
    for kind in KINDS:
        ratios = sorted(row[kind]["rate"] / row["open"]["rate"] for row in rows)
        table[kind] = {
            "of open": round(statistics.median(ratios), 3),
            "lowest": round(ratios[0], 3),
            "highest": round(ratios[-1], 3),
            "rate": statistics.median(row[kind]["rate"] for row in rows),
            "p99_ms": statistics.median(row[kind]["p99_ms"] for row in rows),
        }
        print(f"{kind:16}", table[kind])
    record = {"machine": measure.machine(1, "grpcio", "protobuf", "sqlalchemy"), "rounds": rows}
    given.out.write_text(json.dumps(record | {"table": table}, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
