"""The server that clients here call: whether it answers, how it is reached, whether it is well.

First a look at the port, without gRPC, which would not say whether one side speaks TLS and the
other does not. Next: `wire.py`; `../probe.py`; `tokens.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING

from ...errors import one_line
from ...extras import MissingExtraError, needs
from ..handshake import Heard, Speaks, host_and_port, listen
from ..settings import SETTINGS, with_port
from .finding import Finding, Status, failed, ok, warning, wrong
from .look import Look

if TYPE_CHECKING:
    from ..client.trust import Trust
    from ..probe import Probed

TRUST = ("token", "token_file", "ca", "client_certificate", "client_key")
START = "formwright serve"
NAMES = "call it by a name of its certificate, or make one for this name: formwright certs"
# what OpenSSL says of a certificate that is not trusted -> what to do
DISTRUST = (
    ("expired", "make another for the server, in its place: formwright certs"),
    ("not yet valid", "set the clocks: timedatectl set-ntp true"),
    (
        "mismatch",
        "call it by a name of its certificate, or make one for this name: formwright certs",
    ),
    ("not valid for", "call it by a name of its certificate, or make one for it: formwright certs"),
    ("", "name the CA that has signed it: "),
)


def of_server(look: Look) -> Iterator[Finding]:
    """Whether it answers, is well and knows our calls. One that nobody has named need not run."""
    address, named = address_of(look), look.named("server")
    try:
        with needs("client", "a client"):
            import_module("..probe", __package__)
    except MissingExtraError as error:
        said, _, remedy = str(error).partition("; try: ")
        yield wrong("server", named, said, remedy)
        return
    heard = _heard(look)
    if heard is not None:
        if found := _unreachable(look, heard, address, named):
            yield found
            return
        if heard.speaks is Speaks.TLS:
            yield from _of_certificate(heard, look.clock())
    yield from _of_answer(look, address, named)


def address_of(look: Look) -> str:
    """Of the server that is meant."""
    return with_port(look.text("server"))


def trust(look: Look) -> Trust:
    """Whom clients here trust, and how they say who they are. Raises SettingError."""
    from ..client.trust import Trust

    options = {name: str(look.options[name]) for name in TRUST if name in look.options}
    return Trust.by_settings(address_of(look), **options)


def asked(look: Look) -> Probed | str:
    """What the server says for itself, once."""

    def ask() -> Probed | str:
        from ..probe import probe

        return probe(address_of(look), look.patience_s, trust(look))

    return look.once("server", ask)


def reached(look: Look) -> bool:
    """Whether there is somebody to ask; if not, `of_server` has said so."""
    heard = _heard(look)
    if heard is not None and _unreachable(look, heard, address_of(look), False):
        return False
    return not isinstance(asked(look), str)


def _heard(look: Look) -> Heard | None:
    """None for an address that is no host and port."""

    def hear() -> Heard | None:
        host, port = host_and_port(address_of(look))
        if not port:
            return None
        ours = trust(look)
        certificate, key = map(os.path.expanduser, (ours.client_certificate, ours.client_key))
        pair = (certificate, key) if certificate and key else None
        ca = os.path.expanduser(ours.ca)
        try:
            return listen(host, port, look.patience_s, ca, pair)
        except OSError:  # a file of ours is no good, which another check says
            return listen(host, port, look.patience_s)

    return look.once("heard", hear)


def _unreachable(look: Look, heard: Heard, address: str, named: bool) -> Finding | None:
    """Why no call comes through; None if one may."""
    if heard.speaks in (Speaks.NOBODY, Speaks.NO_WAY, Speaks.SILENT):
        said = f"no answer from {address} ({heard.why})"
        remedy = f"{START} there, or {look.variable('server', 'HOST:PORT')}; a firewall?"
        return wrong("server", named, said, remedy)
    tls = trust(look).is_secure(address)
    if heard.speaks is Speaks.PLAIN and tls:
        said = f"{address} speaks no TLS, and we do"
        remedy = f"{START} --certificate FILE --key FILE there"
        if trust(look).ca:
            remedy += f", or unset {SETTINGS['ca'].variable}"
        return failed("server", said, remedy)
    if heard.speaks is Speaks.TLS and not tls:
        said = f"{address} speaks TLS, and we do not"
        return failed("server", said, look.variable("ca", "FILE") + ", the CA that signed it")
    if heard.speaks is Speaks.TLS and heard.why:
        said = f"{address} speaks TLS, and not as we do: {heard.why}"
        remedy = "compare the versions of TLS and the ciphers of both"
        return failed("server", said, f"{remedy}; or {look.variable('client_certificate', 'FILE')}")
    if heard.refused:
        said = f"{address} does not take us: {heard.refused}"
        remedy = look.variable("client_certificate", "FILE")
        return failed("server", said, f"{remedy} and {look.variable('client_key', 'FILE')}")
    if heard.distrust:
        remedy = next(remedy for word, remedy in DISTRUST if word in heard.distrust)
        ca = look.variable("ca", "FILE") if remedy.endswith(": ") else ""
        said = f"{address} shows a certificate that we do not trust: {heard.distrust}"
        return failed("server", said, remedy + ca)
    return None


def _of_certificate(heard: Heard, now: datetime) -> Iterator[Finding]:
    """How long that of the server is still good."""
    try:
        from .certificates import certificate_of, of_dates
    except ModuleNotFoundError:  # a client need not have what looks into certificates
        return
    found = of_dates("server certificate", certificate_of(heard.certificate), now)
    if found.status is not Status.FAILED:  # else it was not trusted either
        yield found


def _of_answer(look: Look, address: str, named: bool) -> Iterator[Finding]:
    found = asked(look)
    if isinstance(found, str):
        why = "" if found.startswith("failed to connect") else f" ({one_line(found, 120)})"
        said = f"no answer from {address}{why}"
        remedy = f"{START} there, or {look.variable('server', 'HOST:PORT')}"
        yield wrong("server", named, said, remedy)
    elif found.health != "SERVING":
        said = f"{address} says {found.health}"
        remedy = (
            "look into its log (journalctl -u formwright), and at its database: run doctor there"
        )
        yield failed("server", said, remedy)
    elif found.lacks or found.more:
        older = f"it lacks {', '.join(found.lacks)}" if found.lacks else "it knows more calls"
        said = f"{address} is of another version: {older}"
        which = "there" if found.lacks else "here"
        yield warning("server", said, f"pip install --upgrade formwright, {which}")
    else:
        tls = " by TLS" if trust(look).is_secure(address) else ""
        yield ok("server", f"{address} is SERVING{tls} and knows every call")
