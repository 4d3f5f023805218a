"""Why a server cannot be reached, as far as TLS is the reason: a look at what it speaks.

Only asked once a call has failed; nothing is sent but a handshake. Next: `trust.py`.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from .trust import Trust

PATIENCE_S = 1.0


def mismatch(server: str, trust: Trust) -> str:
    """What does not fit between them, and what to do; empty where TLS is not the reason."""
    host, _, port = server.rpartition(":")
    if server.startswith("unix:") or not port.isdigit():
        return ""
    tls = trust.is_secure(server)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE_S) as plain:
            return _shake(plain, host.strip("[]"), trust if tls else None)
    except (OSError, ValueError):
        return ""


def _shake(plain: socket.socket, host: str, trust: Trust | None) -> str:
    """With a trust as its client would; without one as anybody. Raises OSError."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    if trust is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    elif trust.ca:
        context.load_verify_locations(Path(trust.ca).expanduser())
    if trust is not None and trust.client_certificate:
        key = trust.client_key or None
        context.load_cert_chain(trust.client_certificate, key, password=lambda: "")
    try:
        with context.wrap_socket(plain, server_hostname=host) as wrapped:
            if trust is None:
                return "it speaks TLS; name who signed its certificate: --ca FILE"
            if wrapped.recv(1):  # a server of gRPC speaks first
                return ""
            raise ConnectionResetError("certificate")  # whom it does not trust it leaves so
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not trusted: {error.verify_message}; see --ca"
    except TimeoutError:
        return "" if trust is None else "it does not speak TLS, or does not answer"
    except (ssl.SSLError, ConnectionError) as error:
        if trust is None:
            return ""
        if "CERTIFICATE" in str(error).upper():
            if trust.client_certificate:
                return f"it does not trust {trust.client_certificate}"
            return "it wants a certificate of its clients: --client-certificate, --client-key"
        return "it does not speak TLS; an address of that machine itself is called without"
