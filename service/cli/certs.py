"""`formwright certs`: certificates for a server and its clients, of an authority of one's own.

Next: `../certs.py`.
"""

from __future__ import annotations

import argparse
import re
import socket
from pathlib import Path

from rich.console import Console

from ...extras import needs
from ..errors import InvalidRequest
from .common import parser, run

DAYS = 365
FOLDER = "formwright-certs"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,50}", re.ASCII)


def certs_parser() -> argparse.ArgumentParser:
    what = (
        "Make a certificate for a server, signed by an authority in the same folder, which is made"
        " if there is none. Give clients ca.pem; keep the files that end in -key.pem to yourself."
    )
    made = parser("certs", what, server=False)
    made.add_argument("--to", default=FOLDER, metavar="FOLDER", help=f"(default: {FOLDER})")
    made.add_argument(
        "--host",
        action="append",
        metavar="NAME",
        help="a name or an address that clients use; again for more (default: this machine's)",
    )
    made.add_argument("--client", metavar="NAME", help="a client's certificate instead")
    made.add_argument("--days", type=int, default=DAYS, help=f"until they expire ({DAYS})")
    return made


def certs(arguments: list[str]) -> int:
    return run(certs_parser(), arguments, _certs)


def _certs(given: argparse.Namespace, console: Console) -> int:
    with needs("service", "`formwright certs`"):
        from ..certs import authority, issue
    name = given.client or "server"
    is_ours = name == "ca" or name.endswith("-key") or given.client == "server"
    if is_ours or not _NAME.fullmatch(name):
        raise InvalidRequest(f"client: {name!r} is no name for a file here; wanted a short word")
    folder = Path(given.to)
    folder.mkdir(parents=True, exist_ok=True)
    by, is_new = authority(folder)
    if given.client:
        made = issue(folder, by, "client", name, (), given.days)
    else:
        hosts = given.host or sorted({socket.gethostname(), "localhost", "127.0.0.1", "::1"})
        made = issue(folder, by, "server", name, hosts, given.days)
    if is_new:
        _say(console, f"authority    {folder / 'ca.pem'}, for clients: --ca")
    options = "--client-certificate, --client-key" if given.client else "--certificate, --key"
    _say(console, f"certificate  {made[0]} and {made[1]}: {options}")
    if not given.client:
        _say(console, f"hosts        {', '.join(hosts)}")
    return 0


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
