"""The panels of the picture: a front, the history of one objective, a hypervolume that grows.

Each draws into axes that it is given. It must not know files. Next: `picture.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import one_line
from ..front import pareto
from ..objective import Direction, Metric
from ..result import Step
from ..trial import Trial
from .tables import brief, number, what

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

LONGEST_NAME, A_COLUMN = 108, 9  # characters, and how many a column of numbers takes
LONGEST_LABEL = 40  # of a curve
WIDE = 20.0  # ratio of the values above which an axis is logarithmic
# colour-blind safe: "Points of view: Color blindness" (Wong, 2011)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":")  # and in print without colours
SCALE = "cividis"  # as dark for everybody
INK, QUIET, FAINT, GRID = "#222222", "#666A70", "#B9BDC2", "#ECEEF0"
COLUMNS, COLUMN = 4, 0.085  # of metrics in the key, and how wide one is
MANY = 1e4  # from there on numbers are written with k and M


def spread(front: Sequence[Trial], most: int) -> list[Trial]:
    """At most so many of them, both ends among them, evenly apart.

    >>> spread(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(front) <= most:
        return list(front)
    return [front[round(at * (len(front) - 1) / (most - 1))] for at in range(most)]


def of_two(front: Sequence[Trial], metrics: Sequence[Metric]) -> list[Trial]:
    """Those of a front that are best in the first two metrics alone, along the second one."""
    found = pareto(front, metrics[:2])
    return sorted(found, key=lambda trial: trial.values[metrics[:2][-1].name])


def draw_front(
    axes: Axes,
    trials: Sequence[Trial],
    front: Sequence[Trial],
    metrics: Sequence[Metric],
    named: Sequence[Trial],
) -> None:
    """All trials, the second metric across and the first one up; the front over them, connected
    where it is one of these two alone. The members `named` have the numbers of the key."""
    y, x, *more = metrics
    stairs = of_two(front, metrics)
    across, up = _values(trials, x), _values(trials, y)
    axes.scatter(across, up, s=9, c=FAINT, linewidths=0, zorder=2)
    where: Any = "post" if x.direction is Direction.MINIMIZE else "pre"
    axes.step(
        _values(stairs, x), _values(stairs, y), where=where, color=INK, lw=0.9, alpha=0.7, zorder=3
    )
    shades: Any = _values(front, more[0]) if more else COLOURS[0]
    dots = axes.scatter(
        _values(front, x), _values(front, y), s=26, c=shades, zorder=4,
        cmap=SCALE if more else None, norm="log" if more and is_wide(shades) else None,
        edgecolors="white", linewidths=0.6,
    )  # fmt: skip
    if more:
        bar = axes.figure.colorbar(dots, ax=axes, pad=0.02, aspect=30, shrink=0.9)
        bar.set_label(label(more[0]))
        bar.outline.set_visible(False)
        _scale(bar.ax, "y", shades)
    # beyond the front, where nothing is
    left, above = x.direction is Direction.MINIMIZE, y.direction is Direction.MAXIMIZE
    for at, trial in enumerate(named, 1):
        axes.annotate(
            str(at), (trial.values[x.name], trial.values[y.name]),
            xytext=(-4 if left else 4, 3 if above else -3), textcoords="offset points",
            ha="right" if left else "left", va="bottom" if above else "top", fontsize=7, zorder=5,
        )  # fmt: skip
    _scale(axes, "x", across)
    _scale(axes, "y", up)
    axes.set_xlabel(label(x))
    axes.set_ylabel(label(y))
    axes.set_title("Front")
    axes.margins(0.07)


def draw_history(axes: Axes, trials: Sequence[Trial], metric: Metric) -> None:
    """The values of one metric in the order of the trials, and the best so far."""
    best = [trial for trial, _ in _records(trials, metric)]
    numbers = [trial.number for trial in trials]
    axes.scatter(numbers, _values(trials, metric), s=9, c=FAINT, linewidths=0, zorder=2)
    across = [trial.number for trial in best] + numbers[-1:]
    up = _values(best, metric) + _values(best[-1:], metric)
    axes.step(across, up, where="post", color=COLOURS[0], lw=1.5, zorder=3)
    _scale(axes, "y", _values(trials, metric))
    axes.set_xlabel("trial")
    axes.set_ylabel(label(metric))
    axes.set_title("Best so far")


def _records(trials: Sequence[Trial], metric: Metric) -> list[tuple[Trial, float]]:
    sign = -1.0 if metric.direction is Direction.MAXIMIZE else 1.0
    made: list[tuple[Trial, float]] = []
    for trial in trials:
        cost = sign * trial.values[metric.name]
        if not made or cost < made[-1][1]:
            made.append((trial, cost))
    return made


def draw_growth(axes: Axes, curves: Mapping[str, Sequence[Step]], over: str) -> None:
    """A line a search, the first one in front; `over` is the field of a step that goes across. It
    begins with what all had reached after a tenth of their steps."""
    reached = []
    for at, (name, steps) in enumerate(curves.items()):
        across = [0.0, *(float(getattr(step, over)) for step in steps)]
        up = [0.0, *(step.hypervolume for step in steps)]
        reached.append((up[len(up) // 10], max(up)))
        shown = one_line(name, LONGEST_LABEL)
        axes.step(
            across, up, where="post", label=shown, color=COLOURS[at % len(COLOURS)],
            ls=DASHES[at % len(DASHES)], lw=1.2 if at else 1.7, zorder=4 - min(at, 2),
        )  # fmt: skip
    low, high = min(first for first, _ in reached), max(last for _, last in reached)
    room = 0.08 * (high - low) or 0.1
    axes.set_ylim(max(low - room, 0.0), high + room)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds of evaluation" if over == "seconds" else over)


def write_key(figure: SubFigure, named: Sequence[Trial], metrics: Sequence[Metric]) -> None:
    """What the numbers on the front are: a line each, under the names of the metrics."""
    style: dict[str, Any] = {"fontsize": 6.8, "va": "center"}
    shown = metrics[:COLUMNS]
    places = [0.985 - COLUMN * at for at in range(len(shown))][::-1]
    for at in range(len(named) + 1):
        y = 1.0 - (at + 0.5) / (len(named) + 1)
        if not at:
            for x, metric in zip(places, shown, strict=True):
                said = " ".join(filter(None, (name_of(metric), metric.unit)))
                figure.text(x, y, said, ha="right", color=QUIET, **style)
            continue
        trial = named[at - 1]
        said = what(trial, LONGEST_NAME - A_COLUMN * len(shown))
        figure.text(0.035, y, str(at), ha="right", **style)
        figure.text(0.05, y, said, parse_math=False, **style)  # a block may be called "$x$"
        for x, metric in zip(places, shown, strict=True):
            figure.text(x, y, number(trial.values[metric.name]), ha="right", **style)


def _values(trials: Sequence[Trial], metric: Metric) -> list[float]:
    return [trial.values[metric.name] for trial in trials]


def _scale(axes: Axes, side: str, values: Sequence[float]) -> None:
    """Logarithmic where the values are of several sizes, and short numbers where they are long."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axis = axes.xaxis if side == "x" else axes.yaxis
    if wide := is_wide(values):
        axes.set(**{f"{side}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    if wide or max(values) >= MANY:
        axis.set_major_formatter(EngFormatter(sep=""))
        axis.set_minor_formatter(NullFormatter())


def is_wide(values: Sequence[float]) -> bool:
    """Whether an axis of these is logarithmic."""
    return min(values) > 0 and max(values) > WIDE * min(values)


def name_of(metric: Metric) -> str:
    """For people."""
    return brief(metric.name).replace("_", " ")


def label(metric: Metric) -> str:
    """Of an axis: the name, the unit, and which way is better."""
    better = "higher" if metric.direction is Direction.MAXIMIZE else "lower"
    return f"{name_of(metric)} ({', '.join(filter(None, (metric.unit, f'{better} is better')))})"
