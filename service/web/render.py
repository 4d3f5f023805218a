"""Templates filled in. What they share with a report, words and parts, is the search's.

It must not know where values come from. Next: `templates/`; `../../search/show/html/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from ...search import METRICS, templates
from .asks import link

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, values: Mapping[str, Any]) -> str:
    """The whole page. Blocks."""
    text: str = _templates().get_template(template).render(values)
    return text


@cache
def _templates() -> Any:  # of a guest that the search has
    made = templates(TEMPLATES)
    made.filters.update(moment=moment, ago=ago, stamp=datetime.isoformat)
    made.globals.update(METRICS=METRICS, link=link)
    return made


def moment(time: datetime) -> str:
    """A time for people; of which zone is said with it."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def ago(time: datetime, now: datetime | None = None) -> str:
    """How long ago that was.

    >>> day = datetime(2026, 1, 31, tzinfo=UTC)
    >>> ago(day, day.replace(hour=5)), ago(day, day)
    ('5 h ago', 'just now')
    """
    seconds = ((now or datetime.now(UTC)) - time).total_seconds()
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (unit != "days" and seconds >= length):
            return f"{int(seconds // length)} {unit} ago"
    return "just now"
