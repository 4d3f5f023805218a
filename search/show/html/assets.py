"""What a page needs beside itself: its style, the script that draws figures, and plotly.

The one file that knows plotly. Next: `figures.js`, `page.css`; `templates.py`.
"""

from __future__ import annotations

from pathlib import Path

from ....extras import needs

HERE = Path(__file__).parent
KINDS = {
    "page.css": "text/css",
    "plotly.min.js": "text/javascript",
    "figures.js": "text/javascript",
}


def asset(name: str) -> str:
    """The text of one of `KINDS`, which are in the order in which a page has them. Raises
    MissingExtraError where plotly is not installed, KeyError for another name."""
    if name not in KINDS:
        raise KeyError(name)
    if name != "plotly.min.js":
        return (HERE / name).read_text(encoding="utf-8")
    with needs("report", "a page with figures"):
        from plotly.offline import get_plotlyjs
    return str(get_plotlyjs())
