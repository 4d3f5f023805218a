"""The certificates that the settings name: the server's, and a client's own.

Next: `certificates.py`, what is looked at in each; `server.py`, what is seen over the wire.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...extras import needs
from ..errors import SetupError
from ..exposure import exposure
from ..handshake import host_and_port
from ..settings import with_port
from .finding import Finding, Status, failed, ok, warning
from .look import Look

ANY = ("", "0.0.0.0", "::", "[::]")  # a server that listens everywhere


def of_exposure(look: Look) -> Iterator[Finding]:
    """Whether a server would start like this, and its page: other machines reach them with TLS and
    tokens only."""
    hosts = [look.text("host")]
    if ":" in look.text("web"):
        hosts.append(host_and_port(look.text("web"))[0])
    given = [look.text(name) for name in ("certificate", "key", "client_ca", "tokens")]
    for host in dict.fromkeys(hosts):
        try:
            wanted = exposure(host, *given)
        except SetupError as error:
            said, _, remedy = str(error).partition(": give ")
            make = "formwright certs; then " + look.variable("certificate", "FILE")
            yield failed("exposure", said, f"give {remedy}" if remedy else make)
            continue
        tls = "with TLS" if wanted.tls else "without TLS"
        yield ok("exposure", f"{host} {tls}, {'with' if wanted.tokens else 'without'} tokens")


def of_server_files(look: Look) -> Iterator[Finding]:
    """`certificate`, `key` and `client_ca`, where they are set."""
    yield from _of_pair(look, "certificate", "certificate", "key", "ca", _hosts(look))
    yield from _of_roots(look, "client CA", "client_ca")


def of_client_files(look: Look) -> Iterator[Finding]:
    """`client_certificate`, `client_key` and `ca`, where they are set."""
    yield from _of_pair(
        look, "client certificate", "client_certificate", "client_key", "client_ca", []
    )
    yield from _of_roots(look, "CA", "ca")


def _hosts(look: Look) -> list[str]:
    """Under which names clients look for the server that is set up here."""
    hosts = [look.text("host")] if look.text("host") not in ANY else []
    if look.named("server"):
        hosts.append(host_and_port(with_port(look.text("server")))[0])
    return list(dict.fromkeys(host for host in hosts if host))


def _of_pair(
    look: Look, name: str, certificate: str, key: str, vouching: str, hosts: list[str]
) -> Iterator[Finding]:
    """`vouching` is the setting of those who are to trust it, if it is set here too."""
    paths = {setting: look.text(setting) for setting in (certificate, key)}
    if not any(paths.values()):
        return
    if lacks := next((setting for setting, path in paths.items() if not path), ""):
        other = key if lacks == certificate else certificate
        said = f"{other} is set and {lacks} is not; they go together"
        yield failed(name, said, look.variable(lacks, "FILE"))
        return
    with needs("service", "a look at certificates"):
        from . import certificates as c
    try:
        chain = c.certificates_in(paths[certificate])
        roots = c.certificates_in(look.text(vouching)) if look.text(vouching) else []
    except c.NotReadable as error:
        yield failed(name, str(error), error.remedy)
        return
    dates = c.of_dates(name, chain[0], look.clock())
    wrong = [*c.of_key(name, paths[key], chain[0]), *c.of_names(name, chain[0], hosts)]
    if roots and (found := c.of_chain(name, chain, roots, look.text(vouching))):
        wrong.append(found)
    yield from wrong
    if not wrong or dates.status is not Status.OK:
        yield dates


def _of_roots(look: Look, name: str, setting: str) -> Iterator[Finding]:
    """The certificates of those who vouch."""
    path = look.text(setting)
    if not path:
        return
    with needs("service", "a look at certificates"):
        from . import certificates as c
    try:
        roots = c.certificates_in(path)
    except c.NotReadable as error:
        yield failed(name, str(error), error.remedy)
        return
    if none := [root for root in roots if not c.may_sign(root)]:
        who = none[0].subject.rfc4514_string()
        said = f"{path}: {who} is not a CA, and may vouch for itself only"
        yield warning(name, said, "name the certificate of who has signed it")
        return
    yield min(
        (c.of_dates(name, root, look.clock()) for root in roots),
        key=lambda finding: (finding.status is Status.OK, finding.status is Status.WARNING),
        default=ok(name, path),
    )
