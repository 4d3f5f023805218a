"""The server's side of TLS: its certificate and key, read again when the files change.

A certificate that is renewed needs no restart; one that cannot be used is said, and the one before
stays. It must not know who may call. Next: `exposure.py`, when TLS is needed; `cli/certs.py`, which
makes certificates.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any

import grpc

from .errors import SetupError

log = logging.getLogger("formwright.service")


def server_credentials(certificate: str, key: str, client_ca: str = "") -> grpc.ServerCredentials:
    """Of PEM files; with `client_ca` a client has to show a certificate that this CA has signed.
    Raises SetupError if they cannot be used."""
    files = _Files(certificate, key, client_ca)
    newer: Any = files.newer  # None is what gRPC documents, not what its types say
    return grpc.dynamic_ssl_server_credentials(
        files.read(), newer, require_client_authentication=bool(client_ca)
    )


def server_context(certificate: str, key: str, client_ca: str = "") -> ssl.SSLContext:
    """The same for the standard library. Raises SetupError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # without a password: a server that is asked for one would wait for ever
        context.load_cert_chain(certificate, key, password=lambda: "")
        if client_ca:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
            # a session that is taken up again brings no certificate that could be looked at anew
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.num_tickets = 0
    except ssl.SSLError as error:
        what = f"{certificate} and {key}" + (f", with {client_ca}" if client_ca else "")
        why = _reason(error, certificate, key, client_ca)
        raise SetupError(f"cannot serve with {what}: {why}") from error
    except OSError as error:
        for path in filter(None, (certificate, key, client_ca)):
            try:
                Path(path).read_bytes()
            except OSError as reason:
                raise SetupError(f"cannot read {path}: {reason.strerror}") from error
        raise SetupError(f"cannot read {certificate} or {key}: {error.strerror}") from error
    return context


def _reason(error: ssl.SSLError, *paths: str) -> str:
    """OpenSSL's own word for most of these is that they are not PEM."""
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key belongs to another certificate"
    for path in filter(None, paths):
        content = Path(path).read_bytes()
        if b"-----BEGIN " not in content:
            return f"{path} is not a PEM file"
        if b"ENCRYPTED" in content:
            return f"the key is encrypted, and nobody is there to ask for its password: {path}"
    return str(error)


def stamp_of(*paths: str) -> tuple[int, ...]:
    """Differs once one of the files is another, has other content, or may be read by others."""
    try:
        found = [Path(path).stat() for path in paths if path]
    except OSError:  # one is being replaced
        return ()
    return tuple(number for s in found for number in (s.st_mtime_ns, s.st_ctime_ns, s.st_ino))


class _Files:
    """The files, and when they were last seen to change."""

    def __init__(self, certificate: str, key: str, client_ca: str) -> None:
        self._paths = (certificate, key, client_ca)
        self._seen = stamp_of(*self._paths)

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Raises SetupError."""
        server_context(*self._paths)
        certificate, key, client_ca = self._paths
        root = Path(client_ca).read_bytes() if client_ca else None
        pair = (Path(key).read_bytes(), Path(certificate).read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], root)

    def newer(self) -> grpc.ServerCertificateConfiguration | None:
        """Asked at every handshake; None: what there was is still right."""
        stamp = stamp_of(*self._paths)
        if stamp == self._seen:
            return None
        self._seen = stamp
        try:
            found = self.read()
        except SetupError as error:
            log.warning("the certificate is not renewed: %s", error)
            return None
        except OSError as error:  # it may be there at the next handshake
            self._seen = ()
            log.warning("the certificate is not renewed yet: %s", error)
            return None
        log.info("the certificate is renewed from %s", self._paths[0])
        return found
