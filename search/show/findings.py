"""`Findings`: what a report tells of a search, each thing computed once, none of it HTML.

It must not know how a search was run, or a browser. Next: `html/report.py`, which makes a page of
it; `figures.py`, `weighed.py`, `summary.py`, whose words and numbers these are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...errors import one_line
from ..cost import cost_of
from ..describe import pattern
from ..drawing import draw
from ..errors import SpecError
from ..fidelity import ranking_fidelity
from ..front import machine_of, same_machine
from ..importance import Importance, importance
from ..objective import METRICS
from ..result import Result
from ..search_spec import SearchSpec
from ..told import Told, machine_told, passes_of
from ..trial import Trial, TrialState
from .figure import Figure
from .figures import growth_figure, pareto_figures
from .growths import Beside, Growths, Shuffled, growths, shuffled
from .summary import course
from .tables import arrow, number, what
from .weighed import fidelity_figure, importance_figure

DRAWN = 12  # architectures of the front; the rest are listed
LISTED = 200  # trials of the front
REASONS = 12  # of a kind


@dataclass(frozen=True)
class Drawing:
    """An architecture of the front: its letters, what its trial measured, an SVG of ours; `why`
    it cannot be drawn here."""

    number: int
    letters: str
    said: str
    svg: str = ""
    why: str = ""


@dataclass(frozen=True)
class Ended:
    """Trials that ended in `state`: how many, and the commonest reasons, as (trials, reason)."""

    state: str
    count: int
    reasons: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Findings:
    """Of `result`; `front` and all that is drawn is of `machine`."""

    result: Result
    machine: str
    front: Sequence[Trial]
    counts: Sequence[tuple[str, int]]
    hypervolume: float | None
    estimated: bool  # whether hypervolumes are
    pareto: Sequence[Figure]
    growth: Sequence[Figure]
    beside: Sequence[str]
    chance: Shuffled | None
    importance: Sequence[tuple[Importance, Figure | None]]
    fidelity: Figure | None
    drawings: Sequence[Drawing]
    ended: Sequence[Ended]
    course: Sequence[tuple[str, str]]
    machines: Sequence[Sequence[tuple[str, str]]]
    compiled: Sequence[tuple[str, str, str]]
    asked: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, result: Result, beside: Beside = ()) -> Findings:
        """Raises SpecError where the searches `beside` do not compare."""
        machine = result.machines[0] if result.machines else ""
        trials = same_machine(result.succeeded, result.metrics, machine)
        front = result.front(machine=machine) if trials else []
        grown = growths(result, beside) if trials else None
        chance = shuffled(result, grown.span, machine) if grown and not beside else None
        curves = list(grown.curves.items()) if grown else []
        judged = "quality" in result.spec.objectives and bool(trials)
        return cls(
            result=result,
            machine=machine,
            front=front,
            counts=[(state.lower(), count) for state, count in result.states.items()],
            hypervolume=curves[0][1][-1].hypervolume if curves and curves[0][1] else None,
            estimated=bool(grown and grown.span.estimated),
            pareto=pareto_figures(trials, front, result.metrics) if trials else [],
            growth=list(_growth(grown, chance)) if grown else [],
            beside=[name for name, _ in curves[1:]],
            chance=chance,
            importance=[_weighed(trials, name) for name in result.spec.objectives],
            fidelity=fidelity_figure(ranking_fidelity(trials, result.spec)) if judged else None,
            drawings=[_drawing(trial, result.spec.objectives) for trial in front[:DRAWN]],
            ended=list(_ended(result)),
            course=list(course(result, front)),
            machines=list(_machines(result)),
            compiled=[_compiled(trial) for trial in front[:LISTED] if passes_of(trial)],
            asked=list(_asked(result.spec)),
        )

    @property
    def more(self) -> list[str]:
        """Metrics that the front has beside those that the search looks for."""
        known = {name for trial in self.front for name in trial.values}
        return [n for n in METRICS if n in known and n not in self.result.spec.objectives]

    @property
    def orders(self) -> list[tuple[str, Sequence[Trial]]]:
        """The front, the best of each objective first, and by number: (name, trials)."""
        listed = self.front[:LISTED]

        def by(name: str) -> list[Trial]:
            up = METRICS[name].direction == "maximize"
            return sorted(listed, key=lambda trial: trial.values[name], reverse=up)

        numbers = sorted(listed, key=lambda trial: trial.number)
        return [*((name, by(name)) for name in self.result.spec.objectives), ("trial", numbers)]


def _growth(grown: Growths, chance: Shuffled | None) -> Iterator[Figure]:
    estimated = grown.span.estimated
    yield growth_figure(grown.curves, chance, estimated=estimated)
    timed = all(steps[-1].seconds > 0 for steps in grown.curves.values() if steps)
    if len(grown.curves) > 1 and timed:
        yield growth_figure(grown.curves, over="seconds", estimated=estimated)


def _weighed(trials: Sequence[Trial], name: str) -> tuple[Importance, Figure | None]:
    found = importance(trials, name)
    return found, None if found.why else importance_figure(found)


def _drawing(trial: Trial, objectives: Sequence[str]) -> Drawing:
    said = ", ".join(f"{name} {number(trial.values[name])}" for name in objectives)
    try:
        letters, svg = pattern(trial.architecture), draw(trial.architecture, styled=False)
        count = number(float(cost_of(trial.architecture).params))
    except SpecError as error:  # a block that is not installed here
        return Drawing(trial.number, "", said, why=one_line(str(error), 200))
    said += "" if "params" in objectives else f", {count} parameters"
    return Drawing(trial.number, letters or "no layers", said, svg)


def _ended(result: Result) -> Iterator[Ended]:
    for state in (TrialState.FAILED, TrialState.PRUNED):
        if count := result.states.get(state, 0):
            found = result.by_reason(state, REASONS)
            rows = [(str(times), one_line(reason, 300)) for reason, times in found]
            if rest := count - sum(times for _, times in found):
                rows.append((str(rest), "for other reasons, or none that was told"))
            yield Ended(state.lower(), count, rows)


def _machines(result: Result) -> Iterator[list[tuple[str, str]]]:
    """What each machine is, the one with the most trials first."""
    found = Counter(machine_of(trial) for trial in result.trials if machine_told(trial))
    for machine, count in found.most_common():
        told = next(machine_told(t) for t in result.trials if machine_of(t) == machine)
        pairs = [(one_line(name, 40), one_line(value, 120)) for name, value in told.items()]
        yield [("trials", number(count)), *pairs]


def _compiled(trial: Told) -> tuple[str, str, str]:
    """Its number, what our compiler rewrote in it, and what it left as it was, why."""
    passes = passes_of(trial)
    done = [f"{p.name} {p.rewritten}" for p in passes if p.rewritten and p.name != "capture"]
    left = Counter(f"{p.name}: {code}" for p in passes for code in p.declined)
    kept = [f"{said} x {count}" for said, count in left.items()]
    words = (one_line("; ".join(found), 600) or "nothing" for found in (done, kept))
    return (str(trial.number), *words)  # type: ignore[return-value]


def _asked(spec: SearchSpec) -> Iterator[tuple[str, str]]:
    """What was searched, in words."""
    yield "space", spec.space
    yield "task", spec.task
    yield "objectives", ", ".join(f"{name} {arrow(name)}" for name in spec.objectives)
    yield "proposed by", f"{spec.sampler}, seed {spec.seed}"
    yield "budget", ", ".join(_budget(spec))
    yield "training", ", ".join(_training(spec))
    threads = "1 thread" if spec.threads == 1 else f"{spec.threads} threads"
    yield "compiled for", f"{spec.target}, {threads}"
    for name in ("constraints", "knobs", "proxies"):
        if given := getattr(spec, name):
            yield name, ", ".join(given)
    if spec.baselines:
        yield "baselines", f"{len(spec.baselines)} architectures of the user's own, tried first"


def _budget(spec: SearchSpec) -> Iterator[str]:
    yield f"{spec.trials:,} trials"
    if spec.seconds:
        yield f"{spec.seconds:,} s of evaluation"
    if spec.flops:
        yield f"{spec.flops:.3g} operations of training"


def _training(spec: SearchSpec) -> Iterator[str]:
    yield f"{spec.training()} of {spec.batch} examples"
    yield f"learning rate {' or '.join(map(str, spec.rates))}"
    if spec.pretrain:
        yield f"after {spec.pretrain} steps of self-pretraining"
    if spec.rungs > 1:
        yield f"{spec.rungs} rungs, of which one in {spec.keep} goes on"
    if spec.weights != "own":
        yield f"{spec.weights} weights"


def listed(trials: Sequence[Trial]) -> list[tuple[str, str]]:
    """Those of a front that are not drawn: number and architecture."""
    return [(str(trial.number), what(trial)) for trial in trials[DRAWN:LISTED]]
