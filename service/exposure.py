"""Who can reach a server, and what that asks for: one table of rules; and whether its port is free.

    address    certificate   TLS   tokens
    loopback   none          no    if the setting says always
    loopback   there is one  yes   if the setting says always
    any other  none          refused
    any other  there is one  yes   yes

It must not know grpc or HTTP. Next: `tls.py`, `server.py`.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from .access import is_loopback
from .errors import SetupError

ALWAYS = "always"


@dataclass(frozen=True)
class Exposure:
    """What a server has to ask of its clients."""

    tls: bool
    tokens: bool


def exposure(host: str, certificate: str, key: str, client_ca: str, tokens: str) -> Exposure:
    """Of an address. Raises SetupError where it would be reached without protection, or where what
    is given does not belong together."""
    if bool(certificate) != bool(key):
        missing = "key" if certificate else "certificate"
        raise SetupError(f"TLS needs a certificate and its key; there is no --{missing}")
    if client_ca and not certificate:
        raise SetupError("--client-ca asks clients for certificates, which needs --certificate")
    if is_loopback(host):
        return Exposure(tls=bool(certificate), tokens=tokens == ALWAYS)
    if not certificate:
        raise SetupError(
            f"{host} can be reached from other machines, so it is served with TLS and tokens only:"
            " give --certificate and --key (`formwright certs` makes them), or --host 127.0.0.1"
        )
    return Exposure(tls=True, tokens=True)


def why_taken(host: str, port: int) -> OSError | None:
    """Why nobody can listen there; None if it is free."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error
    return None
