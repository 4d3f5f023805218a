"""A drawing of an architecture: one SVG, with nothing from outside, light and dark.

Stages stand side by side, layers of a stage below each other, in reading order; the height of a
block is its share of the parameters of the largest. Every box says what it is to those who hover
over it or have it read to them. Next: `describe.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from .describe import Row, pattern, rows
from .spec import ArchSpec

BOX, GAP, HEADING = 196, 16, 22  # width of a column, space between, height of its heading
LEAST, MOST = 20, 56  # height of a box
# white is read on each of them: 4.5 to 1 or more
COLOURS = {"mixer": "#2a6fa8", "channel": "#9a5a14", "norm": "#5f6670", "end": "#2a7448"}
STYLE = """
svg { font: 11px system-ui, sans-serif; color: #1d2125; background: #ffffff }
@media (prefers-color-scheme: dark) { svg { color: #e6e8eb; background: #16191d } }
text { fill: currentColor } .in { fill: #ffffff }
"""


def draw(spec: ArchSpec, styled: bool = True) -> str:
    """The SVG; not `styled` for a page that has a style for it, which otherwise would be that of
    the whole page. Raises SpecError for a spec that cannot be built."""
    columns = _columns(rows(spec))
    most = max(row.cost.params for column in columns for row in column) or 1
    drawn, tallest = [], 0.0
    for at, column in enumerate(columns):
        x, y = GAP + at * (BOX + GAP), float(GAP + HEADING)
        drawn.append(_text(x, GAP + 12, _heading(column)))
        for row in column:
            height = LEAST + (MOST - LEAST) * row.cost.params / most
            drawn.append(_box(x, y, height, row))
            y += height + 4
        tallest = max(tallest, y)
    wide, high = GAP + len(columns) * (BOX + GAP), tallest + GAP
    what = escape(f"{pattern(spec) or 'no layers'}: {spec.short()}")
    style = f"<style>{STYLE}</style>" if styled else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {wide} {high:.0f}" '
        f'width="{wide}" height="{high:.0f}"><title>{what}</title>{style}'
        f"{''.join(drawn)}</svg>\n"
    )


def _columns(parts: list[Row]) -> list[list[Row]]:
    """The stem and the first stage, then each further stage, the last with the end."""
    columns: list[list[Row]] = [[]]
    for row in parts:
        if row.what == "merge":
            columns.append([])
        columns[-1].append(row)
    return columns


def _heading(column: list[Row]) -> str:
    sizes = " x ".join(map(str, column[-1].grid))
    return f"{sizes} tokens, {column[-1].width} wide"


def _kind(row: Row) -> str:
    if row.path.endswith((".mixer", ".channel")):
        return row.path.rpartition(".")[2]
    return "norm" if row.path.endswith("norm") else "end"


def _box(x: float, y: float, height: float, row: Row) -> str:
    said = escape(f"{row.path}: {row.what} {row.settings}, {row.cost.params:,} parameters")
    inside = "".join(_lines(x, y, height, row))
    return (
        f'<g><title>{said}</title><rect x="{x}" y="{y:.1f}" width="{BOX}" height="{height:.1f}" '
        f'rx="4" fill="{COLOURS[_kind(row)]}"/>{inside}</g>'
    )


def _lines(x: float, y: float, height: float, row: Row) -> Iterator[str]:
    kind = "norm: " if _kind(row) == "norm" else ""
    yield _text(x + 6, y + 14, kind + row.what, "in")
    if height >= 34:
        yield _text(x + 6, y + 28, _cut(row.settings), "in")


def _cut(text: str, most: int = 28) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _text(x: float, y: float, text: str, of: str = "") -> str:
    named = f' class="{of}"' if of else ""
    return f'<text x="{x}" y="{y:.1f}"{named}>{escape(text)}</text>'
