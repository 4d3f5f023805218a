"""What requests have in common: sizes of pages, lengths of texts, ids of requests.

Next: `searches.py`, `trials.py`, which use it.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import Forbidden, InvalidRequest
from ..store import Store

PAGE, LARGEST_PAGE = 50, 200
REQUEST_ID, DISPLAY_NAME = 100, 200  # characters
PRIORITY = 1000


def page_size(given: int) -> int:
    """Of a page; one that is too large is made smaller. Raises InvalidRequest."""
    if given < 0:
        raise InvalidRequest(f"page_size: {given} is negative", "page_size")
    return min(given, LARGEST_PAGE) or PAGE


def text(given: str, longest: int, field: str) -> str:
    """Raises InvalidRequest if it is longer, or has what a terminal takes for a command."""
    if len(given) > longest:
        raise InvalidRequest(f"{field}: longer than {longest} characters", field)
    if not given.isprintable():
        at, odd = next((i, c) for i, c in enumerate(given) if not c.isprintable())
        said = f"{field}: character {at + 1} cannot be printed, it is number {ord(odd)}"
        raise InvalidRequest(said, field)
    return given


def request_id(given: str) -> str:
    """Raises InvalidRequest."""
    return text(given, REQUEST_ID, "request_id")


def priority(
    store: Store, given: int, field: str = "priority", now: Callable[[], int] = lambda: 0
) -> int:
    """Raises InvalidRequest; Forbidden for one that comes before the searches of others, where each
    sees their own only, and is above what the search has `now`, which is asked for then."""
    if not -PRIORITY <= given <= PRIORITY:
        raise InvalidRequest(f"{field}: wanted -{PRIORITY} to {PRIORITY}, got {given}", field)
    if given > 0 and not store.sees_all and given > now():
        said = "above 0, before the searches of others, it needs a token with the scope admin"
        raise Forbidden(f"{field}: {said}; got {given}")
    return given
