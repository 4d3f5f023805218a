"""Whom a client trusts, and how it says who it is.

An address of this machine is called in the open, as servers listen there; every other one with TLS,
so that neither a token nor an answer travels in the open. It must not know the calls.
Next: `remote.py`; `mismatch.py`, where that does not fit the server.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import grpc

from ..access import is_loopback, read_token
from ..configured import is_of_folder, resolve
from ..errors import SettingError
from ..settings import SETTINGS, server_address, with_port

NO_TOKEN = "not a token; wanted fw_ID_SECRET, as `formwright token create` printed it"


@dataclass(frozen=True)
class Trust:
    """`ca` (PEM) signed the server's certificate; by default whom gRPC trusts. `client_certificate`
    and `client_key` (PEM) are for a server that asks for them. Fields as settings are named."""

    token: str = field(default="", repr=False)
    ca: str = ""
    client_certificate: str = ""
    client_key: str = ""

    @classmethod
    def by_settings(cls, server: str, token_file: str | None = None, **given: str | None) -> Trust:
        """For that server; what is not given is as the settings say. What they say of TLS is not
        for another server of this machine than they name. Raises SettingError."""
        of_another = _is_here(server) and server != server_address()
        found = {}
        for name in (each.name for each in fields(cls)):
            value = given.get(name)
            if value is None:
                value = "" if of_another and name != "token" else str(_setting(name))
            found[name] = value
        made = cls(**found)
        if not made.token:
            made = replace(made, token=_read(token_file or str(_setting("token_file"))))
        if made.token and read_token(made.token) is None:
            raise SettingError(NO_TOKEN)
        if made.token:
            _check_place(server, made.ca)
        return made

    def is_secure(self, server: str) -> bool:
        """Whether that server is called with TLS."""
        if self.ca or self.client_certificate:
            return True
        return not _is_here(server)

    def metadata(self) -> tuple[tuple[str, str], ...] | None:
        """What goes with each call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else None

    def channel(self, server: str, options: Any, of: Any = grpc) -> Any:
        """`of` is `grpc` or `grpc.aio`. Raises SettingError if a file cannot be read."""
        if not self.is_secure(server):
            # by no proxy, which would read it
            open_one = [*options, ("grpc.enable_http_proxy", 0)]
            return of.insecure_channel(server, options=open_one)
        credentials = grpc.ssl_channel_credentials(
            root_certificates=_bytes(self.ca),
            private_key=_bytes(self.client_key),
            certificate_chain=_bytes(self.client_certificate),
        )
        return of.secure_channel(server, credentials, options=options)


def _is_here(server: str) -> bool:
    """Whether it is of this machine."""
    return server.startswith("unix:") or is_loopback(server.rpartition(":")[0])


def _check_place(server: str, ca: str) -> None:
    """Whoever has written the folder where somebody happens to be does not get their token. Raises
    SettingError."""
    for name, value in (("server", server), ("ca", ca)):
        found = resolve(SETTINGS[name])
        said = with_port(str(found.value)) if name == "server" else str(found.value)
        if value and said == value and is_of_folder(found):
            variable = SETTINGS[name].variable
            raise SettingError(
                f"{found.source} in this folder says {name} = {found.value!r}, and no token is sent"
                f" where a folder says; name it by --{name}, {variable} or your own settings"
            )


def _setting(name: str) -> object:
    return resolve(SETTINGS[name]).value


def _read(token_file: str) -> str:
    if not token_file:
        return ""
    try:
        return Path(token_file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise SettingError(f"cannot read the token in {token_file}: {_why(error)}") from None


def _bytes(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise SettingError(f"cannot read {path}: {_why(error)}") from None


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
