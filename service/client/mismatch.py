"""Why a server cannot be reached, as far as TLS is the reason: a look at what it speaks.

Only asked once a call has failed; nothing is sent but a handshake. Next: `../handshake.py`.
"""

from __future__ import annotations

import os

from ..handshake import Heard, Speaks, host_and_port, listen
from .trust import Trust

PATIENCE_S = 1.0
_WANTS = "it wants a certificate of its clients: --client-certificate, --client-key"


def mismatch(server: str, trust: Trust) -> str:
    """What does not fit between them, and what to do; empty where TLS is not the reason."""
    host, port = host_and_port(server)
    if not host:
        return ""
    ca, certificate, key = map(
        os.path.expanduser, (trust.ca, trust.client_certificate, trust.client_key)
    )
    pair = (certificate, key) if certificate else None
    try:
        heard = listen(host, port, PATIENCE_S, ca, pair)
    except (OSError, ValueError):
        return ""
    if not trust.is_secure(server):
        said = "it speaks TLS; name who signed its certificate: --ca FILE"
        return said if heard.speaks is Speaks.TLS else ""
    return _of_tls(heard, trust)


def _of_tls(heard: Heard, trust: Trust) -> str:
    """Where the client begins with TLS."""
    if heard.speaks is Speaks.SILENT:
        return "it does not speak TLS, or does not answer"
    if heard.speaks is Speaks.PLAIN:
        return "it does not speak TLS; an address of that machine itself is called without"
    if heard.distrust:
        return f"its certificate is not trusted: {heard.distrust}; see --ca"
    if heard.why:
        said = f"it speaks TLS, and not as we do: {heard.why}"
        if "handshake failure" in heard.why and not trust.client_certificate:
            said += f"; perhaps {_WANTS}"  # TLS 1.2 has one word for this and for no common cipher
        return said
    if heard.refused and trust.client_certificate:
        return f"it does not trust {trust.client_certificate}"
    if heard.refused:
        return _WANTS
    return ""
