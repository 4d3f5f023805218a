"""A certificate and its key, as files: can they be read, do they belong together, how long are they
good, for which names, and who vouches for them.

It must not know the settings. Next: `tls.py`, which does.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from .finding import Finding, failed, ok, warning

SOON = timedelta(days=30)
LONGEST_CHAIN = 10
RENEW = "make another in its place, which needs no restart: formwright certs, or who has signed it"


class NotReadable(Exception):
    """A file of which nothing can be said. The message says why; `remedy`, what to do."""

    def __init__(self, said: str, remedy: str) -> None:
        super().__init__(said)
        self.remedy = remedy


def certificates_in(path: str) -> list[x509.Certificate]:
    """The first is whose key we have, the others vouch for it. Raises NotReadable."""
    try:
        return x509.load_pem_x509_certificates(_content(path))
    except ValueError:
        said = f"{path} holds no certificate as PEM"
        raise NotReadable(said, f"openssl x509 -in {path} -out {path}.pem") from None


def certificate_of(text: str) -> x509.Certificate:
    """That a server has shown, as PEM."""
    return x509.load_pem_x509_certificate(text.encode())


def may_sign(root: x509.Certificate) -> bool:
    """Whether it may vouch for others."""
    try:
        found = root.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return found.value.ca


def _content(path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        said = f"cannot read {path}: {error.strerror}"
        exists = os.path.exists(os.path.expanduser(path))
        remedy = f"let this user read it: chown, chmod 600 {path}" if exists else ""
        raise NotReadable(said, remedy or "formwright certs makes some; see the path") from None


def of_key(name: str, key: str, leaf: x509.Certificate) -> Iterator[Finding]:
    """Whether it is that of the certificate, and nobody else's."""
    try:
        made = load_pem_private_key(_content(key), None)
    except NotReadable as error:
        yield failed(name, str(error), error.remedy)
        return
    except TypeError:
        said = f"{key} wants a passphrase, which nobody can give to a server"
        yield failed(name, said, f"openssl pkey -in {key} -out NEW; chmod 600 NEW")
        return
    except ValueError:
        yield failed(name, f"{key} holds no private key as PEM", "see the path of the key")
        return
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if made.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        said = f"{key} is the key of another certificate"
        yield failed(name, said, "name the two files that were made together")
    mode = stat.S_IMODE(os.stat(os.path.expanduser(key)).st_mode)
    if mode & 0o007:
        yield failed(name, f"everybody may read {key} ({mode:o})", f"chmod 600 {key}")


def of_dates(name: str, leaf: x509.Certificate, now: datetime) -> Finding:
    """Whether it is good now, and for a while."""
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    day = f"{ends:%Y-%m-%d}"
    if now >= ends:
        return failed(name, f"expired on {day}", RENEW)
    if now < begins:
        said = f"is not valid before {begins:%Y-%m-%d %H:%M} UTC"
        return failed(name, said, "set the clock: timedatectl set-ntp true; or wait")
    left = (ends - now).days
    if ends - now < SOON:
        return warning(name, f"expires in {left} days, on {day}", RENEW)
    return ok(name, f"good for {left} days, until {day}")


def of_names(name: str, leaf: x509.Certificate, hosts: Iterable[str]) -> Iterator[Finding]:
    """Whether clients that call these hosts will take it for theirs."""
    names = names_of(leaf)
    for host in hosts:
        if not any(_covers(pattern, host) for pattern in names):
            said = f"is for {', '.join(names) or 'no name at all'}, not for {host}"
            remedy = f"formwright certs with {host}, or let clients call one of its names"
            yield failed(name, said, remedy)


def names_of(leaf: x509.Certificate) -> list[str]:
    """What it is for; the common name does not count."""
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    found = extension.value
    addresses = found.get_values_for_type(x509.IPAddress)
    return [*found.get_values_for_type(x509.DNSName), *map(str, addresses)]


def _covers(pattern: str, host: str) -> bool:
    """
    >>> _covers("*.lab.org", "gpu1.lab.org"), _covers("*.lab.org", "a.b.lab.org")
    (True, False)
    >>> _covers("::1", "0:0:0:0:0:0:0:1"), _covers("*", "10.0.0.1")
    (True, False)
    """
    try:
        return ipaddress.ip_address(host) == ipaddress.ip_address(pattern)
    except ValueError:
        pass
    first, _, rest = pattern.lower().partition(".")
    if first == "*" and rest:
        return host.lower().partition(".")[2] == rest
    return pattern.lower() == host.lower()


def of_chain(
    name: str, chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate], by: str
) -> Finding | None:
    """That the certificates of `by` vouch for the first of the chain; None where they do."""
    current, more = chain[0], list(chain[1:])
    for _ in range(LONGEST_CHAIN):
        if current in roots or any(_issued(current, root) for root in roots):
            return None
        above = next((other for other in more if _issued(current, other)), None)
        if above is None:
            break
        more.remove(above)
        current = above
    issuer = chain[0].issuer.rfc4514_string() or "nobody"
    said = f"was signed by {issuer}, for whom {by} does not vouch"
    remedy = "name the CA that signed it, or append what lies between to the certificate's file"
    return failed(name, said, remedy)


def _issued(child: x509.Certificate, parent: x509.Certificate) -> bool:
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
