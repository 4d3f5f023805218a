"""What a port speaks: nobody listens, TLS, or something else; and what its certificate says.

Sockets only: it must not know gRPC, nor what is wanted. Next: `client/mismatch.py` and the doctor's
`checks/ports.py` and `checks/server.py`, which say what that means.
"""

from __future__ import annotations

import errno
import socket
import ssl
from dataclasses import dataclass, replace
from enum import StrEnum


class Speaks(StrEnum):
    """How a port answers who begins with TLS."""

    NOBODY = "nobody"  # the connection is refused
    NO_WAY = "no way"  # the host is not known, or silent
    TLS = "TLS"
    PLAIN = "plain"  # whatever is no TLS
    SILENT = "silent"  # it listens, and says nothing


@dataclass(frozen=True)
class Heard:
    """`certificate` is that of a port that speaks TLS, as PEM; `distrust` says why who trusts the
    given CA would not take it, `refused` why it does not take us. `why` is for people: what is
    wrong otherwise."""

    speaks: Speaks
    why: str = ""
    certificate: str = ""
    distrust: str = ""
    refused: str = ""


def host_and_port(address: str) -> tuple[str, int]:
    """
    >>> host_and_port("10.0.0.1:50551"), host_and_port("[::1]:8000"), host_and_port("unix:/x")
    (('10.0.0.1', 50551), ('::1', 8000), ('', 0))
    """
    host, _, port = address.rpartition(":")
    return (host.strip("[]"), int(port)) if port.isdecimal() and "/" not in host else ("", 0)


def listen(
    host: str, port: int, limit_s: float, ca: str = "", pair: tuple[str, str] | None = None
) -> Heard:
    """Begins TLS there, as who trusts the CAs in the file `ca` (the system's, if empty) and shows
    the certificate of `pair`: a certificate's file and its key's. Raises OSError for a file that
    cannot be used."""
    heard = _handshake(host, port, limit_s, _greeting_grpc(trusting_all(), None))
    if heard.speaks is not Speaks.TLS:
        return heard
    # only who is trusted is shown who we are
    context = ssl.create_default_context(cafile=ca or None)
    trusting = _handshake(host, port, limit_s, _greeting_grpc(context, pair))
    return replace(
        trusting, speaks=Speaks.TLS, certificate=heard.certificate or trusting.certificate
    )


def trusting_all() -> ssl.SSLContext:
    """For who only looks at what is shown, and sends nothing that matters."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _greeting_grpc(context: ssl.SSLContext, pair: tuple[str, str] | None) -> ssl.SSLContext:
    """Raises OSError, of which ssl.SSLError is one, for files that cannot be used."""
    context.set_alpn_protocols(["h2"])
    if pair:
        certificate, key = pair
        # nobody is there to be asked for the password of a key
        context.load_cert_chain(certificate, key or None, password=lambda: "")
    return context


def _handshake(host: str, port: int, limit_s: float, context: ssl.SSLContext) -> Heard:
    try:
        raw = socket.create_connection((host, port), limit_s)
    except ConnectionRefusedError:
        return Heard(Speaks.NOBODY, "nobody listens there")
    except OSError as error:
        return Heard(Speaks.NO_WAY, error.strerror or str(error))
    with raw:
        try:
            with context.wrap_socket(raw, server_hostname=host) as wrapped:
                return _greeted(wrapped)
        except ssl.SSLCertVerificationError as error:
            return Heard(Speaks.TLS, distrust=error.verify_message)
        except ssl.SSLError as error:
            reason = error.reason or ""
            if "ALERT" in reason:  # it is TLS, in which it refuses
                return _refusing(reason)
            return Heard(Speaks.PLAIN, _words(reason))
        except TimeoutError:
            return Heard(Speaks.SILENT, f"it says nothing within {limit_s:.0f} s")
        except OSError as error:
            gone = error.errno in (errno.ECONNRESET, errno.EPIPE, None)
            return Heard(Speaks.PLAIN if gone else Speaks.NO_WAY, error.strerror or str(error))


def _greeted(wrapped: ssl.SSLSocket) -> Heard:
    """A server that does not take our certificate shows it only after the greeting: gRPC, which
    speaks first where it takes us, hangs up without a word."""
    shown = ssl.DER_cert_to_PEM_cert(wrapped.getpeercert(binary_form=True) or b"")
    refused = ""
    try:
        if not wrapped.recv(1):
            refused = "it hangs up, as on who shows no certificate or one that it does not trust"
    except ssl.SSLError as error:
        return replace(_refusing(error.reason or ""), certificate=shown)
    except OSError:  # it waits for us to speak
        pass
    return Heard(Speaks.TLS, certificate=shown, refused=refused)


def _refusing(reason: str) -> Heard:
    """What it says of our certificate, or of TLS as we speak it."""
    if any(word in reason for word in ("CERT", "UNKNOWN_CA", "ACCESS_DENIED")):
        return Heard(Speaks.TLS, refused=_words(reason))
    return Heard(Speaks.TLS, why=_words(reason))


def _words(reason: str) -> str:
    return reason.lower().replace("_", " ") or "the connection was cut"
