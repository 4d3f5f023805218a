"""`run_search`: a search without a service, in this process or on Ray.

It must not know the service. Next: `run/loop.py`, which does the work.
"""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .evaluate.evaluator import evaluate
from .result import Result
from .run.log import MemoryLog, TrialLog
from .run.loop import drive
from .run.pool import Pool, SerialPool
from .search_spec import SearchSpec
from .trial import Trial


def run_search(
    spec: SearchSpec,
    *,
    workers: int = 0,
    log: TrialLog | None = None,
    pool: Pool | None = None,
    progress: bool = True,
) -> Result:
    """Runs a search to its end and returns what it found.

    `workers` is the number of Ray worker processes; with 0 everything runs in this process. A
    `log` that holds trials already is gone on from. `pool` brings workers of your own, which stay
    open. On a terminal a progress bar is shown on standard error unless `progress` is False.
    Raises SpecError, or PoolError if Ray does not start.
    """
    log = log if log is not None else MemoryLog()
    workforce = pool or make_pool(workers, spec.threads)
    try:
        with _progress(progress) as bar:
            drive(spec, workforce, log, _shows(bar, spec.trials, log.history()))
    finally:
        if pool is None:
            workforce.close()
    return Result(spec, tuple(log.history()))


def make_pool(workers: int, threads: int = 1, address: str | None = None) -> Pool:
    """A pool that evaluates candidates: `workers` Ray actors, or this process if 0."""
    if not workers:
        return SerialPool(evaluate)
    from .run.ray_pool import RayPool  # ray is loaded by those who ask for it

    return RayPool(evaluate, workers, threads=threads, address=address)


def _progress(wanted: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not (wanted and console.is_terminal),
        transient=True,
    )


def _shows(bar: Progress, total: int, before: list[Trial]) -> Callable[[Trial], None]:
    task = bar.add_task("searching", total=total, completed=sum(t.state.final for t in before))

    def seen(trial: Trial) -> None:
        if trial.state.final:
            best = f"{trial.values['quality']:.3f}" if "quality" in trial.values else trial.state
            bar.update(task, advance=1, description=f"trial {trial.number}: {best}")

    return seen
