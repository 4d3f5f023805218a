"""One picture of a search: the front, and how the hypervolume grew, beside other searches.

Drawn with matplotlib's objects alone: no state of the process is touched, and equal results give
equal files. It must not know how a search is run. Next: `panels.py`, which draws;
`growths.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SpecError
from ..front import same_machine
from ..result import Result, Step
from ..span import is_estimated
from ..trial import Trial
from .growths import Beside, growths
from .panels import GRID, INK, draw_front, draw_growth, draw_history, of_two, spread, write_key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}  # metadata left out
WIDTH, HEIGHT, LINE, DPI = 7.2, 3.2, 0.15, 200  # inches; LINE is that of the key below
LABELS = 8  # members of the front that are named
STYLE = {
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 8.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "svg.hashsalt": "formwright",  # or every drawing would have ids of its own
    "svg.fonttype": "path",
}


def picture(
    result: Result,
    path: str | Path,
    beside: Beside = (),
) -> Path:
    """Draws the search into a file, `.png` or `.svg`, and returns its path.

    On the left all trials by the first two objectives, the front in the colours of the third if
    there is one; on the right the hypervolume over evaluations, and over the seconds they took if
    all say so, with that of the searches `beside`, which are called by their sampler if they have
    no other name. All hypervolumes are shares of the box that all these results span together.

    Raises SpecError for another kind of file, if nothing succeeded, if the searches have not the
    same objectives, or if their latencies are of different machines.
    """
    from matplotlib import style

    path = Path(path)
    if path.suffix not in KINDS:
        raise SpecError(f"wanted a file that ends in {' or '.join(KINDS)}, got {path.name!r}")
    grown = growths(result, beside)
    with style.context(["default", STYLE]):
        made = _figure(result, result.front(machine=grown.machine), grown.curves, grown.machine)
        made.savefig(path, dpi=DPI, metadata=KINDS[path.suffix])
    return path


def _figure(
    result: Result, front: Sequence[Trial], curves: Mapping[str, Sequence[Step]], machine: str
) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    named = spread(of_two(front, result.metrics), LABELS)
    key = LINE * (len(named) + 1)
    made = Figure(
        figsize=(WIDTH, HEIGHT + key), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.05)
    )
    halves: Any = made.subfigures(2, 1, height_ratios=(HEIGHT, key))
    drawing, below = halves
    timed = all(steps[-1].seconds > 0 for steps in curves.values() if steps)
    axes = drawing.subplot_mosaic([["F", "E"], ["F", "S" if timed else "E"]], width_ratios=(1.3, 1))
    trials = same_machine(result.succeeded, result.metrics, machine)
    if len(result.metrics) == 1:
        draw_history(axes["F"], trials, result.metrics[0])
    else:
        draw_front(axes["F"], trials, front, result.metrics, named)
    draw_growth(axes["E"], curves, "evaluations")
    if timed:
        draw_growth(axes["S"], curves, "seconds")
    about = ", estimated" if is_estimated(result.metrics) else ""
    axes["E"].set_title(f"Hypervolume (share of the box{about})")
    if len(curves) > 1:
        legend = axes["E"].legend(loc="lower right", handlelength=1.4, borderaxespad=0.1)
        for text in legend.get_texts():  # names that somebody gave: no formulas
            text.set_parse_math(False)
    write_key(below, named, result.metrics)
    return made
