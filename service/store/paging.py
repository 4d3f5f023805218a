"""Page tokens: where the next page begins, and of which list. Keys, not offsets, so that pages do
not shift while rows are added. It must not know SQL.
"""

from __future__ import annotations

import hashlib
import re

from ..errors import InvalidRequest

_TOKEN = re.compile(r"([0-9]{1,18})\.([0-9a-f]{12})", re.ASCII)


def make_token(key: int, scope: object) -> str:
    """`scope` says which list it is, filters included; equal lists must have equal text."""
    return f"{key}.{_digest(scope)}"


def read_token(token: str, scope: object) -> int | None:
    """The key; None if the token is empty. Raises InvalidRequest."""
    if not token:
        return None
    found = _TOKEN.fullmatch(token)
    if not found or found[2] != _digest(scope):
        wrong = f"{token[:50]!r} is not a page token of this list"
        raise InvalidRequest(f"{wrong}; leave it empty to begin again", "page_token")
    return int(found[1])


def check_size(page_size: int) -> int:
    """Raises InvalidRequest."""
    if page_size < 1:
        raise InvalidRequest(f"wanted 1 or more, got {page_size}", "page_size")
    return page_size


def _digest(scope: object) -> str:
    return hashlib.sha256(repr(scope).encode()).hexdigest()[:12]
