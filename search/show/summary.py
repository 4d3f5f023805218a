"""The end of a search on one page: the front, what became of the others, and what to think of it.

It must not know how a search is run. Next: `../fidelity.py`, which judges the proxies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from io import StringIO
from statistics import median

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ...errors import one_line
from ..fidelity import ranking_fidelity
from ..result import Result
from ..search_checks import PREDICTED
from ..told import answered_by, is_audited, rungs_of, seconds_of, stopped_on
from ..trial import Trial, TrialState
from .tables import clock, front_table, share_of_box

ROWS = 20  # of the front
LONGEST_REASON = 100  # characters


def as_text(result: Result, width: int = 100) -> str:
    """The summary as plain text, `width` characters wide."""
    out = StringIO()
    Console(file=out, width=width, highlight=False, color_system=None).print(summary(result))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def summary(result: Result) -> RenderableType:
    """What `rich` prints: the front, the facts, and the ranking fidelity of the proxies."""
    machines, objectives = result.machines, result.spec.objectives
    front = result.front(machine=machines[0]) if machines else []
    parts: list[RenderableType] = []
    if front:
        more = f", the best {ROWS}" if len(front) > ROWS else ""
        title = f"front: {len(front)} of {len(result.succeeded)} that succeeded{more}"
        parts.append(front_table(front[:ROWS], title, objectives))
    facts = Table.grid(padding=(0, 2))
    for name, said in _facts(result, front):
        facts.add_row(name, Text(said))
    parts.append(facts)
    if "quality" in objectives and result.succeeded:
        parts += [Text(), _fidelity(result)]
    return Group(*parts)


def _facts(result: Result, front: Sequence[Trial]) -> Iterator[tuple[str, str]]:
    counts = ", ".join(f"{n} {state.lower()}" for state, n in result.states.items())
    yield "trials", f"{len(result.trials)}: {counts}" if counts else "none"
    for state in (TrialState.FAILED, TrialState.PRUNED):
        for reason, count in result.by_reason(state):
            yield f"  {state.lower()}", f"{count} x {one_line(reason, LONGEST_REASON)}"
    if front:
        span = result.span(result.machines[0])
        shared = result.hypervolume(span, result.machines[0])
        said = share_of_box(shared, span.estimated)
        yield "hypervolume", f"{said} of the box that the results span"
    if len(result.machines) > 1:
        yield (
            "machines",
            f"{len(result.machines)}, whose latencies do not compare; the front is of "
            "the one with the most results",
        )
    yield from course(result, front)


def course(result: Result, front: Sequence[Trial]) -> Iterator[tuple[str, str]]:
    """What it took, and what to think of how it was done: names and what is said."""
    if stages := _seconds(result.trials):
        parts = ", ".join(f"{one_line(stage, 40)} {clock(s)}" for stage, s in stages.items())
        yield "evaluation", f"{clock(sum(stages.values()))}: {parts}"
    if answered := sum(bool(answered_by(trial)) for trial in result.trials):
        yield "stored results", f"answered {answered} trials"
    yield from _ladder(result, front)
    if result.spec.latency == "layers" and (said := _prediction(result)):
        yield "latency model", said


def _seconds(trials: Sequence[Trial]) -> dict[str, float]:
    """Stage -> seconds of all trials."""
    found: dict[str, float] = {}
    for trial in trials:
        for stage, seconds in seconds_of(trial).items():
            found[stage] = found.get(stage, 0.0) + seconds
    return found


def _ladder(result: Result, front: Sequence[Trial]) -> Iterator[tuple[str, str]]:
    """Who was stopped where, and who of those that were kept on to see is on the front."""
    stopped = Counter(rung for t in result.trials if (rung := stopped_on(t)) is not None)
    audited = [trial for trial in result.succeeded if is_audited(trial)]
    if stopped or audited:
        where = ", ".join(f"{count} on rung {rung}" for rung, count in sorted(stopped.items()))
        yield "ladder", f"stopped {where or 'nobody'}"
        on_front = {trial.number for trial in front}
        lost = sum(trial.number in on_front for trial in audited)
        said = f"{lost} of {len(audited)} audited" if audited else "not known: nobody was audited"
        yield "lost by the ladder", said


def _prediction(result: Result) -> str:
    """The error of the latencies predicted on the first rung, where the last one measured them.
    Steps of decoding are measured on both."""
    names = [name for name in PREDICTED if name in ("latency_ms", *result.spec.objectives)]
    errors = []
    for trial in result.succeeded:
        first = rungs_of(trial)[:1]
        for name in names:
            measured = trial.values.get(name, 0.0)
            if measured > 0 and first and name in first[0]:
                errors.append(abs(first[0][name] / measured - 1))
    if not errors:
        return ""
    return (
        f"error {median(errors):.1%} in the median, {max(errors):.1%} at most, "
        f"of {len(errors)} predictions"
    )


def _fidelity(result: Result) -> Table:
    title = "ranking fidelity: Kendall's tau with the final quality [95 %]"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("proxy", "n", "all", "at equal params (within 5 %)"):
        table.add_column(name, justify="right" if name == "n" else "left")
    for row in ranking_fidelity(result.trials, result.spec):
        table.add_row(Text(one_line(row.proxy, 60)), str(row.all.n), str(row.all), str(row.alike))
    return table
