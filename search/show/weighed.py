"""Figures of what was judged: which knobs matter, and how far proxies rank as the quality does.

It must not know how that is computed. Next: `../importance.py`, `../fidelity.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..fidelity import Agreement, ProxyRow
from ..importance import Importance
from ..objective import METRICS
from .figure import Figure, capital, laid_out, plain_text
from .panels import name_of

BARS = 10  # the most important


def importance_figure(found: Importance) -> Figure:
    """Bars from the most important knob down, with the least and the most of the rounds."""
    shown = [weight for weight in found.weights if weight.mean > 0][:BARS]
    name = name_of(METRICS[found.metric]) if found.metric in METRICS else found.metric
    names = [plain_text(weight.knob) for weight in shown]
    spans = {
        "type": "data", "symmetric": False, "color": "@ink", "thickness": 1.2, "width": 4,
        "array": [weight.high - weight.mean for weight in shown],
        "arrayminus": [weight.mean - weight.low for weight in shown],
    }  # fmt: skip
    bars: dict[str, Any] = {
        "type": "bar", "orientation": "h", "name": "importance", "y": names,
        "x": [weight.mean for weight in shown], "error_x": spans,
        "marker": {"color": "@front"}, "showlegend": False, "textposition": "none",
        "text": [f"{n}: R² falls by {w.mean:.3f}" for n, w in zip(names, shown, strict=True)],
        "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip
    of = f"the logarithm of {name}" if found.logarithm else name
    most = ", then ".join(f"{w.knob} ({w.mean:.2f})" for w in shown[:2]) or "no knob"
    return Figure(
        name=f"importance-{found.metric}".replace("_", "-"),
        title=f"{capital(name)}: R² {found.r2 or 0:.2f}",
        said=f"For {of}, what matters most is {most}; the forest predicts "
        f"{max(found.r2 or 0, 0):.0%} of the variance of unseen trials, of {found.n}.",
        data=[bars],
        layout=laid_out(
            {"title": {"text": "R² lost without the knob"}, "rangemode": "tozero"},
            {"autorange": "reversed", "type": "category"},
            "closest",
            legend=False,
        ),
        columns=("knob", "R² lost", "least", "most"),
        rows=[(w.knob, f"{w.mean:.3f}", f"{w.low:.3f}", f"{w.high:.3f}") for w in found.weights],
    )


def fidelity_figure(rows: Sequence[ProxyRow]) -> Figure | None:
    """Tau of each proxy with its interval, over all and among those of equal size; None where no
    proxy has one."""
    data = []
    for name, symbol, colour, field, shift in (
        ("all architectures", "circle", "@front", "all", -0.12),
        ("at equal parameters", "diamond", "@second", "alike", 0.12),
    ):
        found = [
            (at + shift, plain_text(row.proxy), one)
            for at, row in enumerate(rows)
            if (one := getattr(row, field)).tau is not None
        ]
        if found:
            data.append(_taus(name, symbol, colour, found))
    if not data:
        return None
    names = [plain_text(row.proxy) for row in rows]
    known = [row for row in rows if row.all.tau is not None]
    best = max(known, key=lambda row: row.all.tau or -1.0, default=None)
    said = f"Kendall's tau with the final quality, of {len(rows)} proxies, with 95 % intervals"
    if best is not None:
        said += f"; the highest is that of {best.proxy}: {best.all}"
    return Figure(
        name="fidelity",
        title="Kendall's tau with the final quality",
        said=f"{said}.",
        data=data,
        layout=laid_out(
            {"title": {"text": "Kendall's tau"}, "range": [-1.05, 1.05], "zeroline": True,
             "zerolinecolor": "@line"},
            {"tickvals": list(range(len(names))), "ticktext": names,
             "range": [len(names) - 0.5, -0.5]},
            "closest",
        ),
        columns=("proxy", "n", "all", "at equal params (within 5 %)"),
        rows=[(row.proxy, str(row.all.n), str(row.all), str(row.alike)) for row in rows],
    )  # fmt: skip


def _taus(
    name: str, symbol: str, colour: str, found: Sequence[tuple[float, str, Agreement]]
) -> dict[str, Any]:
    taus = [one.tau or 0.0 for _, _, one in found]
    ends = [(one.low or 0.0, one.high or 0.0) for _, _, one in found]
    spans = {
        "type": "data", "symmetric": False, "thickness": 1.5, "width": 4, "color": colour,
        "array": [high - tau for tau, (_, high) in zip(taus, ends, strict=True)],
        "arrayminus": [tau - low for tau, (low, _) in zip(taus, ends, strict=True)],
    }  # fmt: skip
    return {
        "type": "scatter", "mode": "markers", "orientation": "h", "name": name,
        "x": taus, "y": [at for at, _, _ in found], "error_x": spans,
        "text": [f"{proxy}: {one} of {one.n}" for _, proxy, one in found],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": symbol, "size": 10, "color": colour},
    }  # fmt: skip
