"""Ranking fidelity: how far what is known early ranks architectures as their final quality does.

Kendall's tau-b (Kendall, 1945) with a bootstrap interval, and the number of parameters always
beside: a proxy that ranks no better than that has learnt nothing else. It must not know how
anything was measured. Next: `concordance.py`, which counts pairs; `show/summary.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .concordance import pairs, pairs_alike
from .errors import SpecError
from .search_spec import SearchSpec
from .told import Told, proxies_of, rungs_of
from .trial import TrialState

if TYPE_CHECKING:
    from .blocks import Cost

Floats = NDArray[np.float64]

LEAST = 5  # pairs of scores; fewer say nothing
RESAMPLES = 1000
MOST = 500  # things that are drawn anew; of more, so many stand for all
LEVEL = 0.95
NEAR = 1.05  # architectures count as equally large up to this ratio of their parameters
BLOCK = 256  # rows of the table of pairs that are in memory at once


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau-b over `n` architectures with its interval (95 %), all from -1 to 1; `why` says
    why there is none."""

    n: int
    tau: float | None = None
    low: float | None = None
    high: float | None = None
    why: str = ""

    def __str__(self) -> str:
        if self.tau is None:
            return self.why
        return f"{self.tau:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


@dataclass(frozen=True)
class ProxyRow:
    """What one proxy is worth: over `all` architectures that have it, and among pairs that are
    `alike` in their number of parameters, which that number cannot rank."""

    proxy: str
    all: Agreement
    alike: Agreement


def kendall(
    x: Sequence[float],
    y: Sequence[float],
    *,
    sizes: Sequence[float] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Agreement:
    """How far `x` and `y`, scores of the same things, rank them alike: 1 the same order, -1 the
    reverse. With `sizes`, only pairs count whose sizes differ by 5 % at most.

    The interval is the percentile bootstrap over things, drawn anew with `seed`. Of more than 500
    things tau is still that of all, and the interval that of 500 of them, chosen with `seed`: put
    around the tau of all, and narrower by the root of 500 / n ("Resampling fewer than n
    observations", Bickel, Götze and van Zwet, 1997). So work grows as n log^3 n at most, beside
    `resamples` times 500^2 pairs. ValueError if the lengths differ or a score is not finite.

    >>> kendall([1, 2, 3, 4, 5], [1, 2, 3, 5, 4]).tau
    0.8
    """
    if not len(x) == len(y) == len(x if sizes is None else sizes):
        raise ValueError(f"as many of each are wanted, got {len(x)} and {len(y)}")
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("scores must be finite numbers")
    n = len(a)
    if n < LEAST:
        return Agreement(n, why=f"not enough: {n} of {LEAST}")
    near = None if sizes is None else np.maximum(np.asarray(sizes, np.float64), 1.0)
    agree, of_a, of_b = pairs(a, b) if near is None else pairs_alike(a, b, near, NEAR)
    if not of_a or not of_b:
        return Agreement(n, why="no pairs that differ")
    tau = agree / (float(of_a) * float(of_b)) ** 0.5
    rng = np.random.default_rng(seed)
    if n > MOST:
        part = rng.choice(n, MOST, replace=False)
        a, b, near = a[part], b[part], None if near is None else near[part]
    ends = tau + _spread(a, b, near, rng, resamples) * (len(a) / n) ** 0.5
    low, high = np.clip(ends, -1.0, 1.0)
    return Agreement(n, round(float(tau), 4), round(float(low), 4), round(float(high), 4))


def _spread(
    a: Floats, b: Floats, near: Floats | None, rng: np.random.Generator, resamples: int
) -> Floats:
    """How far below and above tau that of things drawn anew is, [2]; without end where nothing that
    is drawn has pairs that differ."""
    n = len(a)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    taus = _taus(a, b, near, np.vstack([np.ones((1, n)), drawn]))
    known = taus[1:][~np.isnan(taus[1:])]
    if np.isnan(taus[0]) or not len(known):
        return np.array([-np.inf, np.inf])
    return np.asarray(np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - taus[0])


def _taus(a: Floats, b: Floats, near: Floats | None, weights: Floats) -> Floats:
    """Tau-b for each row of `weights`, which says how often each thing is there: a thing that is
    there twice is a tie with itself. nan where all are tied."""
    sums = np.zeros((3, len(weights)))
    for start in range(0, len(a), BLOCK):
        rows = slice(start, start + BLOCK)
        x = np.sign(a[rows, None] - a[None, :])
        y = np.sign(b[rows, None] - b[None, :])
        if near is not None:
            least = np.minimum(near[rows, None], near[None, :])
            counts = np.maximum(near[rows, None], near[None, :]) <= NEAR * least
            x, y = x * counts, y * counts
        for at, of in enumerate((x * y, x * x, y * y)):
            sums[at] += ((weights @ of.T) * weights[:, rows]).sum(1)
    agree, of_x, of_y = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(agree / np.sqrt(of_x * of_y))


def ranking_fidelity(trials: Sequence[Told], spec: SearchSpec | None = None) -> list[ProxyRow]:
    """A row for the quality on each earlier rung, each proxy without training, FLOPs and, always
    and last, the number of parameters; against the final quality of those that were trained to the
    end. `spec`, of their search, tells how much training a rung had.

    An architecture that cannot be built here, and does not say how large it is, is alike to none.

    A proxy counts as better the higher it is: one that is better lower has a negative tau. Who was
    stopped early has no final quality, so a ladder that stops many is judged on the good ones, and
    on those that it audits.
    """
    done = [t for t in trials if t.state is TrialState.SUCCEEDED and "quality" in t.values]
    counts: Counts = {}
    sizes = [_counted(trial, "params", counts) for trial in done]
    rows = []
    for name, score in _proxies(done, spec, counts).items():
        scored = [
            (score(t), t.values["quality"], size) for t, size in zip(done, sizes, strict=True)
        ]
        known = [(x, y, size) for x, y, size in scored if x is not None]
        sized = [(x, y, size) for x, y, size in known if size is not None]
        x, y, _ = zip(*known, strict=True) if known else ((), (), ())
        u, v, size = zip(*sized, strict=True) if sized else ((), (), ())
        rows.append(ProxyRow(name, kendall(x, y), kendall(u, v, sizes=size)))
    return rows


Score = Callable[[Told], float | None]
# fingerprint -> what it costs; None where it cannot be built. To count it a model is laid out.
Counts = dict[str, "Cost | None"]


def _proxies(done: Sequence[Told], spec: SearchSpec | None, counts: Counts) -> dict[str, Score]:
    made: dict[str, Score] = {}
    for at in range(max((len(rungs_of(trial)) for trial in done), default=0)):
        if share := _share(at, spec):
            made[f"quality {share}"] = lambda t, at=at: _on_rung(t, at)  # type: ignore[misc]
    for name in sorted({name for trial in done for name in proxies_of(trial)}):
        made[name] = lambda t, name=name: proxies_of(t).get(name)  # type: ignore[misc]
    made.pop("flops", None)  # some count them among the proxies
    made.pop("params", None)
    for name in ("flops", "params"):
        made[name] = lambda t, name=name: _counted(t, name, counts)  # type: ignore[misc]
    return made


def _share(rung: int, spec: SearchSpec | None) -> str:
    """How much training that was; empty for a rung that had all of it."""
    if spec is None:
        return f"on rung {rung}"
    part = spec.keep ** (spec.rungs - 1 - rung) if rung < spec.rungs - 1 else 1
    return f"after 1/{part} of the training" if part > 1 else ""


def _on_rung(trial: Told, rung: int) -> float | None:
    rungs = rungs_of(trial)
    return rungs[rung].get("quality") if rung < len(rungs) else None


def _counted(trial: Told, name: str, counts: Counts) -> float | None:
    """The value, counted from the architecture where it was none of the objectives; None where it
    has a block that is not installed here, or cannot be built for another reason."""
    if name in trial.values:
        return float(trial.values[name])
    key = trial.architecture.fingerprint()
    if key not in counts:
        from .cost import cost_of  # loads torch

        try:
            counts[key] = cost_of(trial.architecture)
        except SpecError:
            counts[key] = None
    cost = counts[key]
    return None if cost is None else float(getattr(cost, name))
