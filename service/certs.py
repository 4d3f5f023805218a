"""A certificate authority of one's own, and what it signs: a self-signed start with TLS.

Keys are P-256 and not encrypted; who can read a key file is who it stands for. The only file that
knows `cryptography`'s builders. Next: `cli/certs.py`; `tls.py`, which serves with them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..search import write_whole
from .errors import InvalidRequest

CA, CA_KEY = "ca.pem", "ca-key.pem"
CA_DAYS = 3650
SKEW = timedelta(hours=1)  # that a clock elsewhere may be behind
LONGEST_DAYS = 825  # beyond which some clients refuse a server's certificate

_USE = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


@dataclass(frozen=True)
class Authority:
    """Who signs."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def authority(folder: Path) -> tuple[Authority, bool]:
    """The one in the folder, and whether it is new. Raises InvalidRequest if it cannot be read."""
    certificate, key = folder / CA, folder / CA_KEY
    if certificate.exists() or key.exists():
        return _read(certificate, key), False
    made = ec.generate_private_key(ec.SECP256R1())
    builder = _builder("formwright", made.public_key(), "formwright", CA_DAYS)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = builder.add_extension(x509.BasicConstraints(True, 0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(made.public_key()), critical=False
    )
    signed = builder.sign(made, hashes.SHA256())
    _write(folder, CA, CA_KEY, signed, made)
    return Authority(signed, made), True


def issue(
    folder: Path, by: Authority, use: str, name: str, hosts: Sequence[str], days: int
) -> tuple[Path, Path]:
    """A certificate and its key, for a `server` of these hosts or for a `client`; the files, which
    stand in the place of older ones. Raises InvalidRequest."""
    if not 1 <= days <= LONGEST_DAYS:
        raise InvalidRequest(f"days: wanted 1 to {LONGEST_DAYS}, got {days}")
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, key.public_key(), by.certificate.subject, days)
    builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([_USE[use]]), critical=False)
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key())
    builder = builder.add_extension(signer, critical=False)
    if hosts:
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    signed = builder.sign(by.key, hashes.SHA256())
    return _write(folder, f"{name}.pem", f"{name}-key.pem", signed, key)


def _builder(
    name: str, key: ec.EllipticCurvePublicKey, issuer: x509.Name | str, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    subject = _name(name)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_name(issuer) if isinstance(issuer, str) else issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=days))
    )


def _name(common: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    except ValueError:
        raise InvalidRequest(f"a name of 1 to 64 characters is wanted, not {common!r}") from None


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise InvalidRequest(f"host: {host!r} is no name of a machine") from None


def _read(certificate: Path, key: Path) -> Authority:
    try:
        signed = x509.load_pem_x509_certificate(certificate.read_bytes())
        made = serialization.load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        why = getattr(error, "strerror", None) or "it is no PEM file of its kind"
        raise InvalidRequest(f"cannot use {certificate} with {key}: {why}") from None
    if not isinstance(made, ec.EllipticCurvePrivateKey) or made.public_key() != signed.public_key():
        raise InvalidRequest(f"{key} is not the key of {certificate}")
    return Authority(signed, made)


def _write(
    folder: Path,
    name: str,
    key_name: str,
    signed: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
) -> tuple[Path, Path]:
    """The key first: a certificate without its key would be of no use."""
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_whole(folder / key_name, text, 0o600)
    write_whole(folder / name, signed.public_bytes(serialization.Encoding.PEM), 0o644)
    return folder / name, folder / key_name
