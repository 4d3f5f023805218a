"""What a server is told when it starts, and where clients look for one.

The only place that reads the environment. Next: `server.py`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

PORT = 50551
LEASE_S = 15.0  # a search whose scheduler was silent for this long is taken over


@dataclass(frozen=True)
class Settings:
    """`database` is the path of an SQLite file or an SQLAlchemy URL; `port` 0 takes a free one;
    `workers` are Ray processes, and with 0 the scheduler evaluates in its own process; `ray` is
    the address of a cluster (none: one is started here). `with_parent` ends the server when its
    standard input closes, so that it does not outlive whoever started it."""

    database: str = "formwright.db"
    host: str = "127.0.0.1"
    port: int = PORT
    workers: int = 2
    ray: str | None = None
    with_parent: bool = False


def with_port(server: str) -> str:
    """`host:port`, with our own port where none is given; gRPC would take 443.

    >>> with_port("localhost"), with_port("10.0.0.1:8000"), with_port("[::1]")
    ('localhost:50551', '10.0.0.1:8000', '[::1]:50551')
    """
    has_port = server.rpartition("]")[2].count(":") == 1
    return server if has_port or "/" in server else f"{server}:{PORT}"


def server_address() -> str:
    """`FORMWRIGHT_SERVER`, or this machine's default."""
    return os.environ.get("FORMWRIGHT_SERVER", f"127.0.0.1:{PORT}")
