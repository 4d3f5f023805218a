"""Observation from outside the passes. Switched on by the environment, never by a pass.

    FORMWRIGHT_DUMP=folder        each graph before the first pass and after every pass that
                                  changed it, as `graph<i>/<nn>_<pass>.txt`
    TORCH_LOGS="+formwright"      the same on the log, and the report of each graph

It must not change a graph. The pipeline itself takes the time; `verify.py` checks numbers.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Protocol

from torch import fx

from .graph import to_text

log = logging.getLogger(__name__)


class Instrument(Protocol):
    """Is shown the graph around each pass."""

    def before(self, name: str, graph: fx.Graph) -> None: ...

    def after(self, name: str, graph: fx.Graph, rewritten: int) -> None: ...


class DumpToFolder:
    """Writes graphs as text into `folder`, numbered in the order of the passes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def before(self, name: str, graph: fx.Graph) -> None:
        if self._count == 0:
            self._write("captured", graph)

    def after(self, name: str, graph: fx.Graph, rewritten: int) -> None:
        if rewritten:
            self._write(name, graph)

    def _write(self, name: str, graph: fx.Graph) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._count:02d}_{name}.txt"
        path.write_text(to_text(graph) + "\n", encoding="utf-8")
        self._count += 1


class DumpToLog:
    """Logs the captured graph and each rewritten one at level DEBUG."""

    def __init__(self) -> None:
        self._first = True

    def before(self, name: str, graph: fx.Graph) -> None:
        if self._first:
            log.debug("captured\n%s", to_text(graph))
            self._first = False

    def after(self, name: str, graph: fx.Graph, rewritten: int) -> None:
        if rewritten:
            log.debug("after %s (%d rewritten)\n%s", name, rewritten, to_text(graph))


def instruments(graph_number: int) -> tuple[Instrument, ...]:
    """The instruments that the environment asks for, for one graph."""
    chosen: list[Instrument] = []
    folder = os.environ.get("FORMWRIGHT_DUMP")
    if folder:
        chosen.append(DumpToFolder(_fresh(Path(folder), graph_number)))
    if log.isEnabledFor(logging.DEBUG):
        chosen.append(DumpToLog())
    return tuple(chosen)


def _fresh(folder: Path, number: int) -> Path:
    """A folder for this graph that no earlier graph of this or another process has taken."""
    while (folder / f"graph{number}").exists():
        number += 1
    return folder / f"graph{number}"
