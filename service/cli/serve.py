"""`formwright serve` and `formwright scheduler`: the processes of the service.

Next: `../server.py`, `../scheduler.py`; both are loaded late, for they need SQLAlchemy.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
from dataclasses import fields, replace

from rich.console import Console

from .. import logs
from ..errors import SetupError
from ..redact import redacted
from ..settings import SETTINGS, WEB_PORT, Settings
from .common import add_setting, parser, run


def serve_parser() -> argparse.ArgumentParser:
    made = parser("serve", "Serve searches until interrupted.", server=False)
    add_setting(made, "database", metavar="FILE")
    for name in ("host", "port", "workers", "tokens", "rate", "at_once"):
        add_setting(made, name)
    for name in ("certificate", "key", "client_ca"):
        add_setting(made, name, metavar="FILE")
    add_setting(made, "web", metavar="HOST:PORT", alone=str(WEB_PORT))
    add_setting(made, "ray", metavar="ADDRESS")
    _add_logs(made)
    add_setting(made, "retention_days", metavar="DAYS")
    made.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    return made


def serve(arguments: list[str]) -> int:
    return run(serve_parser(), arguments, _serve)


def scheduler_parser() -> argparse.ArgumentParser:
    what = "Run searches of a database until interrupted, beside its server's own scheduler."
    made = parser("scheduler", what, server=False)
    add_setting(made, "database", metavar="FILE")
    add_setting(made, "workers")
    add_setting(made, "ray", metavar="ADDRESS")
    _add_logs(made)
    add_setting(made, "retention_days", metavar="DAYS")
    made.set_defaults(database=replace(SETTINGS["database"], default=""))  # never a new one
    return made


def scheduler(arguments: list[str]) -> int:
    return run(scheduler_parser(), arguments, _scheduler)


def _add_logs(to: argparse.ArgumentParser) -> None:
    add_setting(to, "log_format")
    add_setting(to, "log_level")


def _serve(given: argparse.Namespace, console: Console) -> int:
    # gRPC would write a line for whoever knocks without TLS, and none of its lines is JSON
    verbosity = "NONE" if given.log_format == "json" else "ERROR"
    os.environ.setdefault("GRPC_VERBOSITY", verbosity)
    from ..server import serve as serving  # loads SQLAlchemy, which no other command needs

    logs.set_up(given.log_format, given.log_level)
    names = {each.name for each in fields(Settings)}
    known = {name: value for name, value in vars(given).items() if name in names}
    settings = Settings(**known | {"ray": given.ray or None})

    _allow_connections()
    shown = redacted(settings.database)

    def ready(address: str) -> None:
        print(f"formwright serves on {address}, database {shown}", flush=True)

    def shows(page: str) -> None:
        print(f"formwright shows {page}", flush=True)

    asyncio.run(serving(settings, ready, shows))
    return 0


def _allow_connections() -> None:
    """As many files and connections as this user may have open: shells give a thousand."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _scheduler(given: argparse.Namespace, console: Console) -> int:
    from ..scheduler import run_scheduler

    if not given.database:
        setting = SETTINGS["database"]
        raise SetupError(
            f"name the server's database: --database, {setting.variable}, or {setting.key} in the "
            "file with settings"
        )
    logs.set_up(given.log_format, given.log_level)
    days = given.retention_days
    return run_scheduler(given.database, given.workers, given.ray or None, retention_days=days)
