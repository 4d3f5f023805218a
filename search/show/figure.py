"""`Figure`: one figure as data: what plotly draws, the same in words, and the same as a table.

Colours are names such as "@front", which the page's style sheet knows for light and dark. Texts
are data too: what plotly would take for markup is escaped. It must not know plotly, a browser, or
what is drawn. Next: `figures.py`; `html/figures.js`, which draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, TypeVar

from ...errors import one_line
from .panels import is_wide

T = TypeVar("T")
LEAST_POWER, MOST_POWER = -307, 307  # of ten, that five times which is a number still
LONGEST = 240  # characters of a text in a figure
AXIS: Mapping[str, Any] = {
    "gridcolor": "@grid",
    "linecolor": "@line",
    "zeroline": False,
    "automargin": True,
    "ticks": "outside",
    "tickcolor": "@line",
    "ticklen": 4,
    "tickfont": {"size": 12},
}


@dataclass(frozen=True)
class Figure:
    """`name` is unique on a page. `said` tells those who do not see it what it shows; `rows` under
    `columns` are its numbers, of which `left_out` are too many to be listed."""

    name: str
    title: str
    said: str
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    left_out: int = 0

    def plot(self) -> dict[str, Any]:
        """What plotly draws, fit for JSON: what is no finite number is null."""
        return {"data": _plain(list(self.data)), "layout": _plain(dict(self.layout))}


def laid_out(
    across: Mapping[str, Any], up: Mapping[str, Any], hover: str, legend: bool = True
) -> dict[str, Any]:
    """A layout with these axes; `hover` says what is shown where one points."""
    return {
        "xaxis": _axis(across),
        "yaxis": _axis(up),
        "hovermode": hover,
        "paper_bgcolor": "@clear",
        "plot_bgcolor": "@clear",
        "font": {"color": "@ink", "size": 13},
        "hoverlabel": {
            "bgcolor": "@paper",
            "bordercolor": "@line",
            "font": {"color": "@ink"},
            "align": "left",
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "showlegend": legend,
        "margin": {"l": 56, "r": 16, "t": 40 if legend else 8, "b": 48},
        "uirevision": "kept",  # a figure that is drawn again stays as it was turned
    }


def _axis(given: Mapping[str, Any]) -> dict[str, Any]:
    titled = {"title": {"font": {"size": 13}, "standoff": 8, **given.get("title", {})}}
    return {**AXIS, **given, **titled}


def kind_of(values: Iterable[float]) -> dict[str, Any]:
    """Of an axis: logarithmic where the values are of several sizes."""
    found = [value for value in values if math.isfinite(value)]
    if not found or not is_wide(found):
        return {}
    low, high = math.floor(math.log10(min(found))), math.ceil(math.log10(max(found)))
    steps = (1, 2, 5) if high - low <= 4 else (1,)
    powers = range(max(low, LEAST_POWER), min(high, MOST_POWER) + 1)
    ticks = [step * 10.0**power for power in powers for step in steps]
    return {"type": "log", "tickvals": ticks, "ticktext": list(map(_brief, ticks))}


def _brief(value: float) -> str:
    """
    >>> _brief(0.05), _brief(2e4), _brief(5e6)
    ('0.05', '20k', '5M')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def thinned(things: Sequence[T], most: int) -> list[T]:
    """At most so many of them, evenly apart."""
    if len(things) <= most:
        return list(things)
    return [things[at * len(things) // most] for at in range(most)]


def capital(text: str) -> str:
    """The text as a heading begins."""
    return text[:1].upper() + text[1:]


def plain_text(text: str) -> str:
    """For plotly, which reads some tags and entities."""
    return escape(one_line(text, LONGEST), quote=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
