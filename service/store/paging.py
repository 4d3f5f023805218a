"""Page tokens: where the next page begins, and of which list. Places, not offsets, so that pages do
not shift while rows are added. It must not know SQL. Next: `columns.py`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re

from ..errors import InvalidRequest

_TOKEN = re.compile(r"([A-Za-z0-9_-]{1,4000})\.([0-9a-f]{12})", re.ASCII)
Value = str | int | float | None
Place = tuple[Value, int]  # what the list is sorted by, and the key of the row


def make_token(place: Place, scope: object) -> str:
    """`scope` says which list it is, filters included; equal lists must have equal text."""
    text = base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")
    return f"{text}.{_digest(scope)}"


def read_token(token: str, scope: object) -> Place | None:
    """The last row of the page before; None if the token is empty. Raises InvalidRequest."""
    if not token:
        return None
    found = _TOKEN.fullmatch(token)
    place = _place(found[1]) if found and found[2] == _digest(scope) else None
    if place is None:
        wrong = f"{token[:50]!r} is not a page token of this list"
        raise InvalidRequest(f"{wrong}; leave it empty to begin again", "page_token")
    return place


def _place(text: str) -> Place | None:
    try:
        value, key = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, TypeError):
        return None
    if type(key) is not int or not 0 <= key < 2**63:
        return None
    if type(value) is int and abs(value) < 2**63:
        return value, key
    if type(value) is float and math.isfinite(value):
        return value, key
    return (value, key) if value is None or type(value) is str else None


def check_size(page_size: int) -> int:
    """Raises InvalidRequest."""
    if page_size < 1:
        raise InvalidRequest(f"wanted 1 or more, got {page_size}", "page_size")
    return page_size


def _digest(scope: object) -> str:
    return hashlib.sha256(repr(scope).encode()).hexdigest()[:12]
