"""The figures of a report and of the live page: Pareto fronts, a history, hypervolumes that grow.

It must not know plotly, or a browser. Next: `figure.py`, what a figure is; `growths.py`;
`weighed.py`, figures of what was judged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from textwrap import wrap
from typing import Any

from ...errors import one_line
from ..objective import Direction, Metric
from ..result import Step
from ..told import Told
from .figure import Figure, capital, kind_of, laid_out, plain_text, thinned
from .growths import Shuffled
from .panels import label, name_of
from .tables import number, share_of_box, what

MOST = 2000  # trials that are drawn beside the front
ROWS = 300  # of a table that says the same
LONGEST, LINE = 240, 40  # characters of an architecture where one points at it, and of a line
MARKS = {  # symbol, size, colour
    "other trials": ("circle", 8, "@others"),
    "on the front": ("diamond", 11, "@front"),
    "the best": ("diamond", 11, "@front"),
}
DASHES = ("solid", "dash", "dot", "dashdot")
SERIES = ("@front", "@second", "@third", "@fourth")


def pareto_figures(
    trials: Sequence[Told],
    front: Sequence[Told],
    metrics: Sequence[Metric],
    stairs: Sequence[Told] | None = None,
) -> list[Figure]:
    """A figure for each pair of `metrics`, of trials that have succeeded on one machine and the
    `front` among them; of one metric alone its history. `stairs` are the best in the two where
    there are more trials than these."""
    if len(metrics) == 1:
        return [history_figure(trials, front, metrics[0])]
    pairs = combinations(metrics, 2)
    return [pareto_figure(trials, front, pair, metrics, stairs) for pair in pairs]


def pareto_figure(
    trials: Sequence[Told],
    front: Sequence[Told],
    pair: tuple[Metric, Metric],
    metrics: Sequence[Metric] = (),
    stairs: Sequence[Told] | None = None,
) -> Figure:
    """The second metric across and the first one up. The front, of all objectives, stands out by
    shape and colour; a line connects those that are best in these two alone, `stairs` where there
    are more trials than these. Whoever points at a trial sees all `metrics` of it."""
    y, x = pair
    members = {trial.number for trial in front}
    others = [t for t in trials if t.number not in members and _has(t, pair)]
    best = [t for t in front if _has(t, pair)]
    drawn = thinned(others, MOST)
    # of all: these two may be no objectives, whose best are not on the front then
    steps = _best_in(pair, [*best, *others] if stairs is None else stairs)
    known = [*drawn, *best]
    data = [
        _dots(drawn, pair, "other trials", metrics),
        _stairs(steps, pair),
        _dots(best, pair, "on the front", metrics),
    ]
    layout = laid_out(
        {"title": {"text": capital(label(x))}, **kind_of(t.values[x.name] for t in known)},
        {"title": {"text": capital(label(y))}, **kind_of(t.values[y.name] for t in known)},
        "closest",
    )
    listed = [*best, *drawn][:ROWS]
    rows = [(*_cells(t, pair), "front" if t.number in members else "") for t in listed]
    return Figure(
        name=f"pareto-{y.name}-{x.name}".replace("_", "-"),
        title=capital(f"{name_of(y)} and {name_of(x)}"),
        said=_of_pair(steps, best, others, drawn, pair),
        data=data,
        layout=layout,
        columns=("trial", *(_head(m) for m in pair), "architecture", "front"),
        rows=rows,
        left_out=len(others) + len(best) - len(listed),
    )


def history_figure(trials: Sequence[Told], front: Sequence[Told], metric: Metric) -> Figure:
    """The values of one metric in the order of the trials, and the best so far. The front is of
    all objectives: that of one metric alone are the best."""
    known = sorted((t for t in trials if _has(t, [metric])), key=lambda t: t.number)
    members = {trial.number for trial in front}
    up, best = metric.direction is Direction.MAXIMIZE, list[float]()
    for trial in known:
        value = trial.values[metric.name]
        best.append(value if not best else (max if up else min)(best[-1], value))
    drawn = thinned([t for t in known if t.number not in members], MOST)
    dots = [t for t in known if t.number in members]
    name, mark = "on the front", "front"
    if dots and all(t.values[metric.name] == best[-1] for t in dots):
        name, mark = "the best", "best"
    line = {
        "type": "scatter", "mode": "lines", "name": "best so far", "hoverinfo": "skip",
        "x": [t.number for t in known], "y": best, "line": {"color": "@front", "shape": "hv"},
    }  # fmt: skip
    data = [
        _dots(drawn, [metric], "other trials"),
        line,
        _dots(dots, [metric], name),
    ]
    values = [t.values[metric.name] for t in known]
    found = ""
    if known:
        first = next(t for t in known if t.values[metric.name] == best[-1])
        found = f"; the best is {number(best[-1])}, of trial {first.number}"
    return Figure(
        name=f"history-{metric.name}".replace("_", "-"),
        title=capital(name_of(metric)),
        said=f"{capital(name_of(metric))} of {len(known)} trials in their order{found}.",
        data=data,
        layout=laid_out(
            {"title": {"text": "Trial"}},
            {"title": {"text": capital(label(metric))}, **kind_of(values)},
            "closest",
        ),
        columns=("trial", _head(metric), "architecture", mark),
        rows=[(*_cells(t, [metric]), mark if t.number in members else "") for t in known[:ROWS]],
        left_out=max(len(known) - ROWS, 0),
    )


def growth_figure(
    curves: Mapping[str, Sequence[Step]],
    chance: Shuffled | None = None,
    over: str = "evaluations",
    estimated: bool = False,
) -> Figure:
    """The hypervolume of each search over a field of a step; the first one is the search itself.
    With `chance`, its own trials in a random order are behind it. It says so where the shares are
    `estimated`."""
    data: list[dict[str, Any]] = []
    if chance and over == "evaluations":
        data += _band(chance)
    for at, (name, steps) in enumerate(curves.items()):
        kept = _corners(steps)
        line = {"shape": "hv", "color": SERIES[at % 4], "dash": DASHES[at % 4], "width": 2.5}
        data.append({
            "type": "scatter", "mode": "lines", "name": plain_text(name), "line": line,
            "x": [0.0, *(getattr(step, over) for step in kept)],
            "y": [0.0, *(step.hypervolume for step in kept)],
            "hovertemplate": "%{y:.4f} after %{x:,.4~g}",
        })  # fmt: skip
    about = " (estimated)" if estimated else ""
    across = "Seconds of evaluation" if over == "seconds" else "Evaluations"
    rows = [
        (name, str(step.evaluations), number(round(step.seconds, 1)), f"{step.hypervolume:.4f}")
        for name, steps in curves.items()
        for step in _corners(steps)
    ]
    return Figure(
        name=f"growth-{over}",
        title=f"Hypervolume over {'seconds of evaluation' if over == 'seconds' else over}",
        said=_of_growth(curves, chance, estimated),
        data=data,
        layout=laid_out(
            {"title": {"text": across}, "rangemode": "tozero"},
            {"title": {"text": f"Share of the box{about}"}, "range": _room(data)},
            "x unified",
        ),
        columns=("search", "evaluations", "seconds", f"hypervolume{about}"),
        rows=rows[:ROWS],
        left_out=max(len(rows) - ROWS, 0),
    )


def _room(curves: Sequence[Mapping[str, Any]]) -> list[float]:
    """From what all have after a tenth of their steps: what comes before is steep."""
    low = min((curve["y"][len(curve["y"]) // 10] for curve in curves), default=0.0)
    high = max((max(curve["y"]) for curve in curves), default=1.0)
    room = 0.08 * (high - low) or 0.1
    return [max(low - room, 0.0), high + room]


def _band(chance: Shuffled) -> list[dict[str, Any]]:
    across = list(range(1, len(chance.mean) + 1))
    edge = {"type": "scatter", "mode": "lines", "x": across, "line": {"width": 0}}
    quiet = {"hoverinfo": "skip", "legendgroup": "chance"}
    name = "its own trials in a random order"
    return [
        {**edge, **quiet, "y": list(chance.high), "showlegend": False},
        {
            **edge, **quiet, "y": list(chance.low), "fill": "tonexty", "fillcolor": "@band",
            "name": "nine of ten such orders",
        },
        {
            "type": "scatter", "mode": "lines", "x": across, "y": list(chance.mean), "name": name,
            "line": {"color": "@others", "dash": "dash", "width": 2}, "legendgroup": "chance",
            "hovertemplate": "%{y:.4f}",
        },
    ]  # fmt: skip


def _of_growth(
    curves: Mapping[str, Sequence[Step]], chance: Shuffled | None, estimated: bool
) -> str:
    parts = []
    for name, steps in curves.items():
        if steps:
            last = steps[-1]
            half = next(s.evaluations for s in steps if s.hypervolume >= last.hypervolume / 2)
            share = share_of_box(last.hypervolume, estimated)
            parts.append(
                f"{one_line(name, 60)} has {share} of the box after "
                f"{last.evaluations} evaluations, half of it after {half}"
            )
    if chance:
        middle = len(chance.mean) // 2
        parts.append(
            f"in the mean of {chance.orders} random orders its own trials have "
            f"{share_of_box(chance.mean[middle], estimated)} after {middle + 1}"
        )
    return ("; ".join(parts) or "Nothing has been evaluated") + "."


def _of_pair(
    stairs: Sequence[Told],
    best: Sequence[Told],
    others: Sequence[Told],
    drawn: Sequence[Told],
    pair: Sequence[Metric],
) -> str:
    y, x = pair
    said = f"{len(best)} trials on the front and {len(others)} others"
    if len(drawn) < len(others):
        said += f", of which {len(drawn):,} are drawn"
    values = [f"{number(t.values[y.name])} at {name_of(x)} {_measure(t, x)}" for t in stairs]
    if len(set(values)) > 1:
        said += f". In these two alone the best go from {name_of(y)} {values[0]} to {values[-1]}"
    elif stairs:
        said += f". In these two alone trial {stairs[0].number} is best: {name_of(y)} {values[0]}"
    return said + "."


def _dots(
    trials: Sequence[Told], metrics: Sequence[Metric], name: str, more: Sequence[Metric] = ()
) -> dict[str, Any]:
    """One metric goes over the numbers of the trials."""
    y, *rest = metrics
    across = [t.values[rest[0].name] if rest else t.number for t in trials]
    symbol, size, colour = MARKS[name]
    edge = {"color": "@paper", "width": 1}
    return {
        "type": "scatter", "mode": "markers", "name": f"{name} ({len(trials)})",
        "x": across, "y": [t.values[y.name] for t in trials],
        "text": [_pointed(trial, more or metrics) for trial in trials],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": symbol, "size": size, "color": colour, "line": edge},
    }  # fmt: skip


def _best_in(pair: tuple[Metric, Metric], trials: Sequence[Told]) -> list[Told]:
    """Their front in these two, as `pareto` has it, in one sweep; from left to right."""
    x = pair[1]

    def costs(trial: Told) -> tuple[float, ...]:
        signs = [-1.0 if m.direction is Direction.MAXIMIZE else 1.0 for m in pair]
        return tuple(s * trial.values[m.name] for s, m in zip(signs, pair, strict=True))

    known = sorted((t for t in trials if _has(t, pair)), key=costs)
    found: list[Told] = []
    for trial in known:
        if not found or costs(trial)[1] < costs(found[-1])[1] or costs(trial) == costs(found[-1]):
            found.append(trial)
    return sorted(found, key=lambda t: t.values[x.name])


def _stairs(trials: Sequence[Told], pair: Sequence[Metric]) -> dict[str, Any]:
    y, x = pair
    shape = "hv" if x.direction is Direction.MINIMIZE else "vh"
    return {
        "type": "scatter", "mode": "lines", "name": "best in these two", "showlegend": False,
        "hoverinfo": "skip",
        "x": [t.values[x.name] for t in trials], "y": [t.values[y.name] for t in trials],
        "line": {"shape": shape, "color": "@front", "width": 1.5},
    }  # fmt: skip


def _pointed(trial: Told, metrics: Sequence[Metric]) -> str:
    """What is said of the trial that one points at."""
    known = [metric for metric in metrics if metric.name in trial.values]
    numbers = [f"{name_of(metric)} {_measure(trial, metric)}" for metric in known]
    lines = wrap(what(trial, LONGEST), LINE) or [""]
    return "<br>".join([f"<b>trial {trial.number}</b>", *numbers, *map(plain_text, lines)])


def _corners(steps: Sequence[Step]) -> list[Step]:
    """Those after which it is another one, and the last."""
    kept, before = [], 0.0
    for step in steps:
        if step.hypervolume != before or step is steps[-1]:
            kept.append(step)
        before = step.hypervolume
    return kept


def _has(trial: Told, metrics: Iterable[Metric]) -> bool:
    return all(math.isfinite(trial.values.get(metric.name, math.nan)) for metric in metrics)


def _cells(trial: Told, metrics: Iterable[Metric]) -> list[str]:
    return [str(trial.number), *(number(trial.values[m.name]) for m in metrics), what(trial)]


def _measure(trial: Told, metric: Metric) -> str:
    return " ".join(filter(None, (number(trial.values[metric.name]), metric.unit)))


def _head(metric: Metric) -> str:
    return " ".join(filter(None, (name_of(metric), metric.unit)))
