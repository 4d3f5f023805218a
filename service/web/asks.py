"""What may stand behind the `?` of an address, read and checked; and links that say it again.

It must not know what is shown. Next: `pages.py`; `../filters.py`, the grammar of filters.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from ...errors import unknown
from ...search import METRICS, Direction
from ..errors import InvalidRequest
from ..filters import LONGEST, MOST

if TYPE_CHECKING:
    from .pages import Asked

# what searches may be sorted by
ORDERS = {
    "": "newest first",
    "create_time": "oldest first",
    "update_time desc": "last changed",
    "priority desc": "highest priority",
    "display_name": "name",
    "state": "state",
}
_AT = re.compile(r"at character (\d+): ")
_PART = re.compile(r".(?:(?!\s+(?:AND|OR)\s|[()]).)*")  # one comparison, or what is left of it


@dataclass(frozen=True)
class Wrong:
    """What is wrong with a filter: its text up to there, what stands there, the rest."""

    said: str
    before: str
    here: str
    after: str


def text(asked: Asked, name: str) -> str:
    """As it was given. Raises InvalidRequest if it is too long, or has what no database keeps."""
    given = asked.query.get(name, "").strip()
    if len(given) > 2 * LONGEST or "\0" in given:
        raise InvalidRequest(f"{name}: longer than {2 * LONGEST} characters, or not a text", name)
    return given


def one_of(asked: Asked, name: str, known: Collection[str]) -> str:
    """One of those that are known. Raises InvalidRequest."""
    given = text(asked, name)
    if given not in known:
        raise InvalidRequest(unknown(name, given[:50], filter(None, known)), name)
    return given


def axes(asked: Asked, objectives: Sequence[str]) -> tuple[str, str]:
    """The metrics across and up: the second objective and the first, unless others are named.
    Raises InvalidRequest."""
    usual = (objectives[1] if len(objectives) > 1 else objectives[0], objectives[0])
    found = [asked.query.get(name) or metric for name, metric in zip("xy", usual, strict=True)]
    for name, metric in zip("xy", found, strict=True):
        if metric not in METRICS:
            raise InvalidRequest(unknown("metric", metric[:50], METRICS), name)
    return found[0], found[1]


def orders_of(objectives: Sequence[str]) -> dict[str, str]:
    """What the trials of a search may be sorted by."""
    best = {
        f"metrics.{name}{' desc' if METRICS[name].direction is Direction.MAXIMIZE else ''}": (
            f"best {name}"
        )
        for name in objectives
    }
    return {"": "number", "number desc": "newest first", **best}


def wrong(filter: str, error: InvalidRequest) -> Wrong:
    """The error of a filter, with its place in the text."""
    said = str(error)
    found = _AT.match(said)
    at = min(int(found[1]) - 1, len(filter)) if found else len(filter)
    part = _PART.match(filter, at) if found else None
    end = part.end() if part else at
    return Wrong(said, filter[:at], filter[at:end], filter[end:])


def both(*filters: str) -> str:
    """What is in all of them."""
    wanted = [filter for filter in filters if filter]
    return wanted[0] if len(wanted) == 1 else " AND ".join(f"({filter})" for filter in wanted)


def quoted(text: str) -> str:
    """As a value in a filter."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def for_reason(reason: str) -> str:
    """The filter of those that have ended for one of the commonest reasons: … stands for numbers.

    >>> for_reason("diverged"), for_reason("took … s, not 5")
    ('error = "diverged"', 'error : "took " AND error : " s, not 5"')
    """
    parts = [part for part in re.split("[…\n]", reason) if part.strip()]
    if parts == [reason]:
        whole = f"error = {quoted(reason)}"
    else:
        whole = " AND ".join(f"error : {quoted(part)}" for part in parts[:MOST])
    if len(whole) <= LONGEST:
        return whole
    return f"error : {quoted(max(parts, key=len)[: LONGEST // 4])}"


def link(path: str, **query: str) -> str:
    """An address; what is empty is left out."""
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path
