"""`formwright serve` and `formwright scheduler`: the processes of the service.

Next: `../server.py`, `../scheduler.py`; both are loaded late, for they need SQLAlchemy.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys

from rich.console import Console

from ...search import SpecError
from ..settings import PORT, Settings
from .common import parser, run


def serve(arguments: list[str]) -> int:
    made = parser("serve", "Serve searches until interrupted.", server=False)
    own = " (default %(default)s)"
    made.add_argument("--database", default="formwright.db", help="SQLite file or URL" + own)
    made.add_argument("--host", default="127.0.0.1", help="address to listen on" + own)
    made.add_argument("--port", type=int, default=PORT, help="0 takes a free one" + own)
    made.add_argument("--workers", type=int, default=2, help="of Ray; 0: without Ray" + own)
    made.add_argument("--ray", metavar="ADDRESS", help="a Ray cluster (default: one is started)")
    made.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    return run(made, arguments, _serve)


def scheduler(arguments: list[str]) -> int:
    what = "Run searches of a database until interrupted, beside its server's own scheduler."
    made = parser("scheduler", what, server=False)
    own = " (default %(default)s)"
    made.add_argument("--database", required=True, help="the server's: a file, or a URL")
    made.add_argument("--workers", type=int, default=2, help="of Ray; 0: without Ray" + own)
    made.add_argument("--ray", metavar="ADDRESS", help="a Ray cluster (default: one is started)")
    return run(made, arguments, _scheduler)


def _serve(given: argparse.Namespace, console: Console) -> int:
    from ..server import serve as serving  # loads SQLAlchemy, which no other command needs

    if given.workers < 0 or not 0 <= given.port < 65536:
        raise SpecError(
            f"wanted 0 workers or more and a port from 0 to 65535, got {given.workers} workers "
            f"and port {given.port}"
        )
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    settings = Settings(
        given.database, given.host, given.port, given.workers, given.ray, given.with_parent
    )

    if not given.host.startswith("127.") and given.host not in ("localhost", "::1"):
        print(
            f"warning: whoever reaches {given.host} may submit searches; there is no "
            "authentication yet",
            file=sys.stderr,
        )

    def ready(address: str) -> None:
        print(f"formwright serves on {address}, database {settings.database}", flush=True)

    asyncio.run(serving(settings, ready))
    return 0


def _scheduler(given: argparse.Namespace, console: Console) -> int:
    from ..scheduler import run_scheduler

    if given.workers < 0:
        raise SpecError(f"wanted 0 workers or more, got {given.workers}")
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    return run_scheduler(given.database, given.workers, given.ray)
