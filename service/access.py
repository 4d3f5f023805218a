"""Who calls, and what they may do: scopes, callers, and the text of tokens.

A token is `fw_{id}_{secret}`. The id is public: it names the token in lists and logs. The secret,
256 random bits, is shown once; what is kept of it is its SHA-256, which is enough for a secret
that nobody can guess. It must not know the store, grpc or HTTP. Next: `store/tokens.py` keeps
them; `gate.py` asks for them.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

SECRET_BYTES = 32
_TOKEN = re.compile(r"fw_([0-9a-f]{12})_([A-Za-z0-9_-]{43})", re.ASCII)
_OWNER = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}", re.ASCII)
NO_HASH = "0" * 64


class Scope(IntEnum):
    """What a token lets its holder do; each includes those before it."""

    READ = 1  # see what its owner's searches are and have found
    SUBMIT = 2  # make searches, change and end them
    ADMIN = 3  # the same with everybody's, and before those of others

    @property
    def word(self) -> str:
        return self.name.lower()


SCOPES = {scope.word: scope for scope in Scope}


@dataclass(frozen=True)
class Caller:
    """Who makes a call: searches that it makes are its owner's. `token` is the id of its token, and
    empty where none is asked for."""

    owner: str
    scope: Scope
    token: str

    @property
    def sees(self) -> str | None:
        """Whose searches it sees; None: everybody's."""
        return None if self.scope is Scope.ADMIN else self.owner


EVERYBODY = Caller("", Scope.ADMIN, "")  # where no tokens are asked for


@dataclass(frozen=True)
class TokenRecord:
    """A token as the store keeps it, without its secret. Times are UTC; `expires` None: never."""

    id: str
    owner: str
    scope: Scope
    created: datetime
    expires: datetime | None
    revoked: datetime | None

    def state(self, now: datetime) -> str:
        """`valid`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"


def new_token() -> tuple[str, str, str]:
    """A token's text, its id, and the hash of its secret."""
    id, secret = secrets.token_hex(6), secrets.token_urlsafe(SECRET_BYTES)
    return f"fw_{id}_{secret}", id, hash_of(secret)


def read_token(text: str) -> tuple[str, str] | None:
    """The id and the secret; None for what is no token.

    >>> read_token("fw_00112233aabb_" + "x" * 43)[0], read_token("secret")
    ('00112233aabb', None)
    """
    found = _TOKEN.fullmatch(text)
    return (found[1], found[2]) if found else None


def hash_of(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def is_hash_of(secret: str, kept: str) -> bool:
    """Takes as long whether it is or not."""
    return hmac.compare_digest(hash_of(secret), kept)


def is_owner(name: str) -> bool:
    """Whether it can be the name of an owner: a short word, as of a user or a team."""
    return _OWNER.fullmatch(name) is not None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address. `host` as it stands before a port.

    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "[::1]", "0.0.0.0")]
    [True, True, True, True, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
