"""A table whose last column goes below the others where a terminal has no room beside them: what is
cut is never a number.

It must not know what it shows. Next: `tables.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

ROOM = 16  # characters that make the last column worth its place beside the others
GAP = 2  # between columns with the last one below


@dataclass(frozen=True)
class Column:
    """Its `name`, a `short` one for narrow terminals, and whether it holds `words`, not numbers."""

    name: str
    short: str
    words: bool = False


@dataclass(frozen=True)
class Fitted:
    """`rows` of cells under `columns`, and for each row a text of the column `last`, which is
    folded where it is too long, or with `cut` ends in an ellipsis."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    last: str
    texts: Sequence[str]
    cut: bool = False

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        widths = self._widths([column.name for column in self.columns])
        room = min(ROOM, max(map(cell_len, (self.last, *self.texts))))
        # a table has a character at its ends and between columns, and two around what is in one
        if sum(widths) + room + 3 * (len(widths) + 1) + 1 <= options.max_width:
            yield self._beside(widths)
        else:
            yield from self._below(options.max_width)

    def _widths(self, names: Sequence[str]) -> list[int]:
        return [max(map(cell_len, cells)) for cells in zip(names, *self.rows, strict=True)]

    def _beside(self, widths: Sequence[int]) -> Table:
        title = Text(self.title, "table.title")
        table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", expand=self.cut)
        for column, width in zip(self.columns, widths, strict=True):
            table.add_column(
                column.name, justify="left" if column.words else "right", min_width=width
            )
        if self.cut:
            table.add_column(self.last, no_wrap=True, overflow="ellipsis", ratio=1)
        else:
            table.add_column(self.last, overflow="fold")
        for row, text in zip(self.rows, self.texts, strict=True):
            table.add_row(*map(Text, (*row, text)))
        return table

    def _below(self, most: int) -> Iterator[RenderableType]:
        """A line of numbers for each row, or all rows on several alike, then its text."""
        names = [column.short for column in self.columns]
        widths = self._widths(names)
        lines: list[list[int]] = [[]]
        for at, width in enumerate(widths):
            if sum(widths[other] + GAP for other in lines[-1]) + width > most:
                lines.append([])
            lines[-1].append(at)
        yield Text(self.title, "table.title")
        for line in lines:
            yield Text(self._placed(names, widths, line), "table.header")
        for row, text in zip(self.rows, self.texts, strict=True):
            placed = (self._placed(row, widths, line) for line in lines)
            yield from map(Text, filter(str.strip, placed))
            said = Text(text, no_wrap=self.cut, overflow="ellipsis" if self.cut else "fold")
            yield Padding(said, (0, 0, 0, GAP))
        yield Text()

    def _placed(self, cells: Sequence[str], widths: Sequence[int], line: Sequence[int]) -> str:
        sides = [cells[at].ljust if self.columns[at].words else cells[at].rjust for at in line]
        return (" " * GAP).join(side(widths[at]) for side, at in zip(sides, line, strict=True))
