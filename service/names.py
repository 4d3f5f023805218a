"""Resource names: `searches/{id}`, `searches/{id}/trials/{n}`, `architectures/{fingerprint}`.

The only place that makes and reads them. It must not know the store or the wire.
"""

from __future__ import annotations

import re

from .errors import InvalidRequest

_SEARCH = re.compile(r"searches/([0-9a-z][0-9a-z-]{0,62})")


def search_name(id: str) -> str:
    return f"searches/{id}"


def trial_name(id: str, number: int) -> str:
    return f"searches/{id}/trials/{number}"


def architecture_name(fingerprint: str) -> str:
    return f"architectures/{fingerprint}"


def search_id(name: str, field: str = "name") -> str:
    """The id in a search's name. Raises InvalidRequest.

    >>> search_id("searches/0a1b")
    '0a1b'
    """
    found = _SEARCH.fullmatch(name)
    if not found:
        raise InvalidRequest(
            f"{name[:100]!r} is not the name of a search; wanted searches/{{id}}", field
        )
    return found[1]
