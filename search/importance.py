"""Which knobs matter for a metric: permutation importance on trials that a forest has not seen.

"Random forests" (Breiman, 2001): a forest learns the metric from the knobs; a knob matters as much
as its predictions of other trials get worse when the knob's values are shuffled among these. How
well it predicts at all stands beside it: of what is not predicted nothing can be said. It must not
know how anything is shown. Next: `show/weighed.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from .spec import ArchSpec, BlockSpec, Scalar
from .told import Told

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST = 20  # trials; fewer say nothing
MOST = 1000  # of more, so many, evenly apart
KNOBS = 60  # the first so many that differ
TREES, PARTS, ROUNDS, SHUFFLES = 40, 5, 3, 3
WORTH = 0.1  # R² below which the forest has learnt nothing to speak of
WIDE = 20.0  # ratio of the values above which their logarithm is learnt


class Proposed(Told, Protocol):
    """A trial that may tell the genes that were proposed."""

    @property
    def params(self) -> Mapping[str, Scalar]: ...


@dataclass(frozen=True)
class Weight:
    """By how much R² falls without the knob: in the mean of the rounds, the least, the most."""

    knob: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Importance:
    """Of the knobs for `metric`, the most important first, learnt from `n` trials; `r2` is the
    share of the variance that is predicted of trials that were not seen; `why` says why there is
    no importance to be read."""

    metric: str
    n: int
    r2: float | None = None
    weights: tuple[Weight, ...] = ()
    logarithm: bool = False
    why: str = ""


def importance(trials: Sequence[Proposed], metric: str, seed: int = 0) -> Importance:
    """Of trials that have succeeded, on one machine if that matters for the metric.

    The knobs are the genes that were proposed; where no trial tells them, those that can be read
    off the architectures.
    """
    known = [trial for trial in trials if metric in trial.values]
    if any(trial.params for trial in known):
        known = [trial for trial in known if trial.params]
    if len(known) > MOST:
        known = [known[at * len(known) // MOST] for at in range(MOST)]
    n = len(known)
    if n < LEAST:
        return Importance(metric, n, why=f"not enough: {n} of {LEAST} trials")
    values = [trial.values[metric] for trial in known]
    if min(values) == max(values):
        return Importance(metric, n, why="all trials have the same value")
    columns = knobs_of(known)
    if not columns:
        return Importance(metric, n, why="no knob differs")
    return _learnt(metric, columns, values, seed)


def knobs_of(trials: Sequence[Proposed]) -> dict[str, list[Scalar | None]]:
    """Knob -> its value in each trial, None where it is not there; those that differ, and tell
    more than one before them does."""
    rows = [dict(t.params) if t.params else dict(traits(t.architecture)) for t in trials]
    names = dict.fromkeys(name for row in rows for name in row)
    found: dict[str, list[Scalar | None]] = {}
    for name in sorted(names, key=lambda name: name.count(" ")):  # a block before its settings
        column = [row.get(name) for row in rows]
        if len(set(map(repr, column))) < 2 or len(found) == KNOBS:
            continue
        if not any(_tells(earlier, column) for earlier in found.values()):
            found[name] = column
    return found


def _tells(one: Sequence[Scalar | None], other: Sequence[Scalar | None]) -> bool:
    """Whether each value of the one goes with one value of the other, and often enough."""
    pairs = {(repr(a), repr(b)) for a, b in zip(one, other, strict=True)}
    values = {a for a, _ in pairs}
    return len(pairs) == len(values) <= len(one) // 4


def traits(spec: ArchSpec) -> Iterator[tuple[str, Scalar]]:
    """What an architecture has, with names for people.

    >>> layer = BlockSpec.of("pool", size=3), BlockSpec.of("mlp", hidden=8, activation="gelu")
    >>> from .spec import LayerSpec
    >>> made = dict(traits(ArchSpec.of_images((1, 8, 8), 10, 2, 32, (LayerSpec(*layer, "rms"),))))
    >>> made["width"], made["layers"], made["mixer 1"], made["mixer 1 size"], made["norm 1"]
    (32, 1, 'pool', 3, 'rms')
    """
    yield from _block("stem", spec.stem)
    yield "last norm", spec.norm.name
    for s, stage in enumerate(spec.stages, 1):
        where = "" if len(spec.stages) == 1 else f"{s}."
        yield f"width {where}".strip(), stage.width
        yield f"layers {where}".strip(), len(stage.layers)
        yield f"merge {where}".strip(), stage.merge
        for at, layer in enumerate(stage.layers, 1):
            place = f"{where}{at}"
            yield from _block(f"mixer {place}", layer.mixer)
            yield from _block(f"norm {place}", layer.norm)
            yield f"residual {place}", layer.residual
            if layer.channel is not None:
                yield from _block(f"channel {place}", layer.channel)


def _block(where: str, block: BlockSpec | None) -> Iterator[tuple[str, Scalar]]:
    if block is None:
        return
    yield where, block.name
    for name, value in dict(block.settings).items():
        yield f"{where} {name}", value


def _learnt(
    metric: str,
    columns: Mapping[str, Sequence[Scalar | None]],
    values: Sequence[float],
    seed: int,
) -> Importance:
    import numpy as np
    from sklearn.model_selection import KFold

    y = np.asarray(values, np.float64)
    logarithm = bool(y.min() > 0 and y.max() > WIDE * y.min())
    if logarithm:
        y = np.log(y)
    blocks = [_encoded(column) for column in columns.values()]
    wanted = np.cumsum([0, *(block.shape[1] for block in blocks)])
    x = np.hstack(blocks).astype(np.float32)
    rng = np.random.default_rng(seed)
    whole = ((y - y.mean()) ** 2).sum()
    scores, losses = [], []
    for at in range(ROUNDS):
        errors = np.zeros(1 + len(blocks))
        for train, test in KFold(PARTS, shuffle=True, random_state=seed + at).split(x):
            forest = _forest(x[train], y[train], rng)
            shuffled = [x[test]]
            for left, right in pairwise(wanted):
                for _ in range(SHUFFLES):
                    changed = x[test].copy()
                    changed[:, left:right] = changed[rng.permutation(len(test)), left:right]
                    shuffled.append(changed)
            told = _told(forest, np.vstack(shuffled)).reshape(len(shuffled), len(test))
            squares = ((told - y[test]) ** 2).sum(1)
            errors[0] += squares[0]
            errors[1:] += squares[1:].reshape(len(blocks), SHUFFLES).mean(1)
        scores.append(1 - errors[0] / whole)
        losses.append((errors[1:] - errors[0]) / whole)
    r2 = round(float(np.mean(scores)), 4)
    rows = np.array(losses)
    weights = [
        Weight(name, *(round(float(of(rows[:, at])), 4) for of in (np.mean, np.min, np.max)))
        for at, name in enumerate(columns)
    ]
    weights.sort(key=lambda weight: -weight.mean)
    said = f"the forest predicts nothing: R² {r2:.2f}" if r2 < WORTH else ""
    return Importance(metric, len(y), r2, tuple(weights), logarithm, said)


def _encoded(column: Sequence[Scalar | None]) -> Floats:
    """Numbers as they are, one below all where there is none; a column for each of other values."""
    import numpy as np

    numbers = [v for v in column if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) + sum(v is None for v in column) == len(column):
        below = min(numbers) - 1
        return np.array([[below if v is None else v] for v in column], np.float64)
    kinds = sorted({repr(v) for v in column})
    return np.array([[repr(v) == kind for kind in kinds] for v in column], np.float64)


def _forest(x: Floats, y: Floats, rng: np.random.Generator) -> list[Any]:
    """Trees, each of as many trials drawn anew; what a forest of scikit-learn does for regression,
    without its bookkeeping, which takes most of the time where there are few trials."""
    from sklearn.tree import DecisionTreeRegressor

    made = []
    for seed in rng.integers(2**31, size=TREES):
        drawn = rng.integers(len(y), size=len(y))
        tree = DecisionTreeRegressor(min_samples_leaf=2, random_state=int(seed))
        made.append(tree.fit(x[drawn], y[drawn], check_input=False))
    return made


def _told(forest: list[Any], x: Floats) -> Floats:
    """What the trees say, in the mean."""
    import numpy as np

    return np.asarray(np.mean([tree.predict(x, check_input=False) for tree in forest], axis=0))
